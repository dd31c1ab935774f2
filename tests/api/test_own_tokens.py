"""Tokens through the front door: shown once, revoked at once, and nobody else's business."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi import FastAPI

from chatd.settings import Settings
from chatd.store import tokens
from chatd.store.db import Database, load
from tests.api.conftest import Person, client
from tests.api.served import closing_code, heard, open_socket, serving

LAPTOP = {"name": " laptop ", "expires_in_days": 7}


async def add(person: Person, path: str = "/users/me/tokens", **fields: Any) -> Any:
    answer = await person.post(path, LAPTOP | fields)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def status_with(app: FastAPI, token: str) -> int:
    async with client(app, authorization=f"Bearer {token}") as http:
        return (await http.get("/api/experimental/users/me")).status_code


async def test_somebody_elses_token_is_not_found(
    app: FastAPI, admin: Person, member: Person
) -> None:
    made = await add(admin)
    assert (await member.delete(f"/users/me/tokens/{made['id']}")).status_code == 404
    assert (await member.delete(f"/users/me/tokens/{uuid4()}")).status_code == 404
    theirs = f"/users/{member.user.id}/tokens/{made['id']}"
    assert (await admin.delete(theirs)).status_code == 404
    assert await status_with(app, made["token"]) == 200


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_members_do_not_touch_the_tokens_of_others(
    admin: Person, member: Person, method: str
) -> None:
    path = f"/api/experimental/users/{admin.user.id}/tokens"
    path += f"/{uuid4()}" if method == "DELETE" else ""
    body = LAPTOP if method == "POST" else None
    answer = await member.http.request(method, path, json=body)
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "x" * 129),
        ("name", "two\nlines"),
        ("name", 7),
        ("expires_in_days", 0),
        ("expires_in_days", 3651),
        ("expires_in_days", "7"),
        ("expires_in_days", True),
        ("expires_at", "2030-01-01"),
    ],
)
async def test_a_token_that_makes_no_sense_is_refused(
    member: Person, field: str, value: object
) -> None:
    answer = await member.post("/users/me/tokens", LAPTOP | {field: value})
    assert answer.status_code == 400
    assert [problem["field"].partition(".")[0] for problem in answer.json()["validations"]] == [
        field
    ]


async def test_tokens_of_an_unknown_user_are_not_found(admin: Person) -> None:
    path = f"/users/{uuid4()}/tokens"
    assert (await admin.get(path)).status_code == 404
    assert (await admin.post(path, LAPTOP)).status_code == 404
    assert (await admin.get("/users/7/tokens")).status_code == 400


async def test_a_hundred_work_at_most_also_when_two_are_asked_for_at_once(
    member: Person, db: Database
) -> None:
    async with db.transaction() as session:
        for number in range(98):
            await tokens.create_token(session, member.user.id, f"t{number}")
    answers = await asyncio.gather(
        *(member.post("/users/me/tokens", LAPTOP) for _ in range(3)),
    )
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409]
    (made,) = [answer.json() for answer in answers if answer.status_code == 201]
    await member.delete(f"/users/me/tokens/{made['id']}")
    await add(member)


async def test_every_token_that_works_is_listed_before_those_that_do_not(
    member: Person, db: Database
) -> None:
    await db.fetch(
        """INSERT INTO api_tokens (id, user_id, name, token_sha256, revoked_at)
        SELECT gen_random_uuid(), $1, 'dead', sha256(n::text::bytea), clock_timestamp()
        FROM generate_series(1, $2) n""",
        member.user.id,
        tokens.SHOWN,
    )
    listed = (await member.get("/users/me/tokens")).json()["tokens"]
    assert [token["revoked_at"] is None for token in listed] == [False] * (tokens.SHOWN - 1) + [
        True
    ]


async def test_a_token_is_shown_once_and_never_its_hash(
    app: FastAPI, member: Person, db: Database
) -> None:
    made = await add(member)
    assert made["name"] == "laptop"
    assert await status_with(app, made["token"]) == 200
    listed = await member.get("/users/me/tokens")
    assert [token["name"] for token in listed.json()["tokens"]] == ["laptop", ""]
    for answer in (listed.text, (await member.get("/users/me")).text):
        assert made["token"] not in answer
        assert tokens.sha256(made["token"]).hex() not in answer
    rows = await db.fetch("SELECT a::text AS line FROM audit_log a")
    assert made["token"] not in str(rows)


async def test_a_token_expires_by_the_day_or_never(member: Person) -> None:
    assert (await add(member, expires_in_days=None))["expires_at"] is None
    made = await add(member, expires_in_days=3650)
    assert int(made["expires_at"][:4]) - int(made["created_at"][:4]) in (9, 10)


async def test_a_deleted_token_stops_working_and_is_deleted_again_in_peace(
    app: FastAPI, member: Person, db: Database
) -> None:
    made = await add(member)
    for _ in range(2):
        assert (await member.delete(f"/users/me/tokens/{made['id']}")).status_code == 204
        assert await status_with(app, made["token"]) == 401
    rows = await db.fetch(
        "SELECT action, actor_id, before, after FROM audit_log WHERE target_id = $1 ORDER BY id",
        made["id"],
    )
    assert [row["action"] for row in rows] == ["create", "revoke"]
    assert {row["actor_id"] for row in rows} == {member.user.id}
    assert load(rows[0]["after"])["user_id"] == str(member.user.id)


async def test_administrators_make_and_revoke_tokens_of_others(
    app: FastAPI, admin: Person, member: Person
) -> None:
    path = f"/users/{member.user.id}/tokens"
    made = await add(admin, path)
    assert await status_with(app, made["token"]) == 200
    assert made["id"] in [token["id"] for token in (await admin.get(path)).json()["tokens"]]
    assert (await admin.delete(f"{path}/{made['id']}")).status_code == 204
    assert await status_with(app, made["token"]) == 401
    assert await status_with(app, member.token) == 200


async def test_a_revoked_token_closes_its_streams_and_no_other(
    app: FastAPI, settings: Settings, member: Person
) -> None:
    (own,) = (await member.get("/users/me/tokens")).json()["tokens"]
    other = await add(member)
    async with (
        serving(app, settings) as address,
        open_socket(address, "/chats/watch", member) as mine,
        open_socket(
            address, "/chats/watch", Person(member.user, other["token"], member.http)
        ) as others,
    ):
        await member.delete(f"/users/me/tokens/{other['id']}")
        await heard(others, "chat_error")
        assert await closing_code(others) == 1008
        held = app.state.parts.permits._held
        assert {permit.token_id for permit in held} == {UUID(own["id"])}
        await mine.ping()
