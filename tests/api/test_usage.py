"""What things cost, through the front door; and who may spend no more."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi import FastAPI

from chatd.core.usage import Spent, estimated_usage
from chatd.store.db import Database
from chatd.store.usage import record_usage
from tests.api.conftest import Person, enter, text

HELLO: dict[str, Any] = {"content": text("hello there")}


async def spend(
    db: Database, person: Person, chat_id: str, micros: int | None, model: str | None = None
) -> None:
    usage, model_id = estimated_usage(40, 8), UUID(model) if model else None
    line = Spent(person.user.id, UUID(chat_id), "step", usage, model_id, micros)
    await record_usage(db, [line])


async def limit(admin: Person, micros: int, period: str = "month", *, enabled: bool = True) -> None:
    body = {"enabled": enabled, "default_limit_micros": micros, "period": period}
    answer = await admin.put("/chats/config/usage-limits", body)
    assert answer.status_code == 200, answer.text


async def chat_of(person: Person) -> str:
    answer = await person.post("/chats", HELLO)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def today() -> str:
    return datetime.now(UTC).date().isoformat()


# --- reading


@pytest.mark.parametrize(
    "query",
    [
        "start_date=2026-02-02&end_date=2026-02-01",
        "end_date=1999-12-31",
        "end_date=9999-12-31",
        "start_date=0001-01-01&end_date=2026-02-01",
        "start_date=2024-01-01&end_date=2026-02-01",
        "start_date=2999-12-31",
        "start_date=yesterday",
    ],
)
async def test_days_that_make_no_sense_are_refused(admin: Person, query: str) -> None:
    for path in ("/usage", "/usage/users"):
        assert (await admin.get(f"{path}?{query}")).status_code == 400


async def test_only_administrators_see_everybody(member: Person) -> None:
    assert (await member.get("/usage/users")).status_code == 403
    answer = await member.put(f"/usage/limits/users/{member.user.id}", {"spend_limit_micros": -1})
    assert answer.status_code == 403


async def test_a_chat_of_somebody_else_is_not_found(
    admin: Person, member: Person, model: str
) -> None:
    chat_id = await chat_of(member)
    assert (await admin.get(f"/chats/{chat_id}/usage")).status_code == 404


async def test_what_is_used_is_told_by_chat_day_kind_and_model(
    db: Database, member: Person, admin: Person, model: str
) -> None:
    one, two = await chat_of(member), await chat_of(member)
    await spend(db, member, one, 5, model)
    await spend(db, member, two, 7, model)
    await spend(db, member, two, None)
    await db.fetch("UPDATE usage_entries SET at = at - interval '40 days' WHERE cost_micros = 5")
    mine = (await member.get("/usage")).json()
    assert (mine["total_tokens"], mine["total_cost_micros"]) == (24, 7)
    assert (mine["priced"], mine["unpriced"]) == (1, 1)
    assert [row["kind"] for row in mine["by_kind"]] == ["step"]
    assert [(row["model"], row["total_tokens"]) for row in mine["by_model"]] == [
        ("m", 12),
        (None, 12),
    ]
    assert [(row["date"], row["total_tokens"]) for row in mine["by_day"]] == [(today(), 24)]
    assert [(row["chat_id"], row["title"]) for row in mine["by_chat"]] == [(two, "hello there")]
    assert mine["end_date"] == today()
    long_ago = (datetime.now(UTC) - timedelta(days=60)).date().isoformat()
    whole = (await member.get(f"/usage?start_date={long_ago}")).json()
    assert whole["total_cost_micros"] == 12
    assert len(whole["by_day"]) == 2
    assert (await admin.get("/usage")).json()["total_tokens"] == 0


async def test_the_last_day_counts_to_its_end(db: Database, member: Person, model: str) -> None:
    chat_id = await chat_of(member)
    for at in ("2026-03-10T23:59:59.999Z", "2026-03-11T00:00:00Z", "2026-03-12T00:00:00Z"):
        await spend(db, member, chat_id, 1)
        await db.fetch(
            "UPDATE usage_entries SET at = $1::text::timestamptz"
            " WHERE id = (SELECT max(id) FROM usage_entries)",
            at,
        )
    found = (await member.get("/usage?start_date=2026-03-11&end_date=2026-03-11")).json()
    assert (found["total_cost_micros"], len(found["by_day"])) == (1, 1)


async def test_a_deleted_chat_has_still_been_paid_for(
    db: Database, member: Person, model: str
) -> None:
    chat_id = await chat_of(member)
    await spend(db, member, chat_id, 5)
    await member.delete(f"/chats/{chat_id}")
    (row,) = (await member.get("/usage")).json()["by_chat"]
    assert (row["title"], row["total_cost_micros"]) == (None, 5)


async def test_everybodys_usage_is_paged_with_the_dearest_first(
    app: FastAPI, db: Database, admin: Person, member: Person, model: str
) -> None:
    other = await enter(app, db, "maximilian", "member")
    await spend(db, member, await chat_of(member), 5)
    await spend(db, other, await chat_of(other), 9)
    await other.http.aclose()
    found = (await admin.get("/usage/users")).json()
    assert [row["username"] for row in found["users"]] == ["maximilian", "max", "ada"]
    assert found["users"][1]["priced"] == 1
    assert (found["users"][2]["total_cost_micros"], found["count"]) == (None, 3)
    found = (await admin.get("/usage/users?username=MAX&limit=1&offset=1")).json()
    assert [row["username"] for row in found["users"]] == ["max"]
    assert found["count"] == 2
    assert (await admin.get("/usage/users?username=%25")).json()["users"] == []
    assert (await admin.get("/usage/users?username=%00")).status_code == 400


# --- limits


@pytest.mark.parametrize("micros", [-2, 10**16, 1.5, "5", True])
async def test_a_limit_that_is_none_is_refused(admin: Person, member: Person, micros: Any) -> None:
    path = f"/usage/limits/users/{member.user.id}"
    assert (await admin.put(path, {"spend_limit_micros": micros})).status_code == 400
    assert (await member.get("/usage/limits")).json()["source"] == "disabled"


async def test_a_limit_for_nobody_is_not_found(admin: Person) -> None:
    answer = await admin.put(f"/usage/limits/users/{uuid4()}", {"spend_limit_micros": 5})
    assert answer.status_code == 404


async def test_a_users_own_limit_is_set_shown_and_audited(
    db: Database, admin: Person, member: Person
) -> None:
    await limit(admin, 10, "week")
    path = f"/usage/limits/users/{member.user.id}"
    shown: list[tuple[Any, Any]] = []
    for micros in (25, -1, None):
        answer = await admin.put(path, {"spend_limit_micros": micros})
        assert answer.json() == {"user_id": str(member.user.id), "spend_limit_micros": micros}
        standing = (await member.get("/usage/limits")).json()
        shown.append((standing["limit_micros"], standing["source"]))
        assert (standing["enabled"], standing["period"]) == (True, "week")
    assert shown == [(25, "user"), (None, "user"), (10, "default")]
    rows = await db.fetch(
        "SELECT after FROM audit_log WHERE target_type = 'user' AND target_id = $1 ORDER BY id",
        str(member.user.id),
    )
    assert len(rows) == 3


async def test_who_has_spent_their_limit_starts_nothing_more(
    db: Database, admin: Person, member: Person, model: str
) -> None:
    chat_id = await chat_of(member)
    queued = (await member.post(f"/chats/{chat_id}/messages", HELLO)).json()
    (message,) = (await member.get(f"/chats/{chat_id}/messages")).json()["messages"]
    await spend(db, member, chat_id, 10)
    await limit(admin, 10)
    before = await rows_of(db)
    turn = queued["turn"]["id"]
    tried = {
        "create": await member.post("/chats", HELLO),
        "send": await member.post(f"/chats/{chat_id}/messages", HELLO),
        "edit": await member.patch(f"/chats/{chat_id}/messages/{message['id']}", HELLO),
        "regenerate": await member.post(f"/chats/{chat_id}/regenerate", {}),
        "promote": await member.post(f"/chats/{chat_id}/queue/{turn}/promote", {}),
        "compact": await member.post(f"/chats/{chat_id}/compact", {}),
        "title": await member.post(f"/chats/{chat_id}/title/regenerate", {}),
        "propose": await member.post(f"/chats/{chat_id}/title/propose", {}),
    }
    assert {name: answer.status_code for name, answer in tried.items()} == dict.fromkeys(tried, 409)
    problem = tried["send"].json()
    assert (problem["message"], problem["code"]) == ("Chat usage limit exceeded.", "usage_limit")
    assert (problem["spent_micros"], problem["limit_micros"]) == (10, 10)
    assert problem["resets_at"] == (await member.get("/usage/limits")).json()["resets_at"]
    assert await rows_of(db) == before
    assert (await admin.post("/chats", HELLO)).status_code == 201


async def test_what_was_accepted_before_is_answered_again(
    db: Database, admin: Person, member: Person, model: str
) -> None:
    key = {"Idempotency-Key": "once"}
    first = await member.post("/chats", HELLO, headers=key)
    await spend(db, member, first.json()["id"], 10)
    await limit(admin, 10)
    again = await member.post("/chats", HELLO, headers=key)
    assert again.json()["turn"]["id"] == first.json()["turn"]["id"]
    other = await member.post("/chats", HELLO, headers={"Idempotency-Key": "another"})
    assert other.status_code == 409


async def test_what_was_spent_before_the_period_does_not_count(
    db: Database, admin: Person, member: Person, model: str
) -> None:
    chat_id = await chat_of(member)
    await spend(db, member, chat_id, 10)
    await db.fetch("UPDATE usage_entries SET at = at - interval '32 days'")
    await limit(admin, 10)
    assert (await member.post("/chats", HELLO)).status_code == 201
    await limit(admin, 0)
    assert (await member.post("/chats", HELLO)).status_code == 409
    await limit(admin, 0, enabled=False)
    assert (await member.post("/chats", HELLO)).status_code == 201


async def test_a_look_up_that_fails_lets_through(
    db: Database, admin: Person, member: Person, model: str
) -> None:
    await limit(admin, 0)
    await db.fetch("ALTER TABLE usage_entries RENAME TO away")
    assert (await member.post("/chats", HELLO)).status_code == 201
    await db.fetch("ALTER TABLE away RENAME TO usage_entries")
    assert (await member.post("/chats", HELLO)).status_code == 409


async def rows_of(db: Database) -> list[int]:
    tables = ("chats", "turns", "chat_messages")
    rows = [await db.fetch(f"SELECT count(*) FROM {table}") for table in tables]
    return [row[0][0] for row in rows]
