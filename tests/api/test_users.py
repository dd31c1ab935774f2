"""Users through the front door: who one is, and what administrators do with everybody."""

import asyncio
import base64
from typing import Any
from uuid import UUID, uuid4

import httpx2
import orjson
import pytest
from fastapi import FastAPI

from chatd.dev.valkey import Valkey
from chatd.settings import Settings
from chatd.store import work
from chatd.store.db import Database, load
from tests.api.conftest import BASE, Person, enter, text
from tests.api.served import closing_code, heard, open_socket, serving
from tests.waiting import transaction


async def lines(db: Database, target: object) -> list[tuple[str, Any, Any]]:
    rows = await db.fetch(
        "SELECT action, before, after FROM audit_log WHERE target_id = $1 ORDER BY at", str(target)
    )
    return [(row["action"], load(row["before"]), load(row["after"])) for row in rows]


async def new_chat(person: Person, words: str = "hello") -> str:
    answer = await person.post("/chats", {"content": text(words)})
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


async def policy_version(db: Database) -> int:
    return (await db.fetch("SELECT version FROM policy_state"))[0]["version"]


async def statuses(db: Database) -> list[str]:
    return [row["status"] for row in await db.fetch("SELECT status FROM turns ORDER BY position")]


# --- who may do what


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/users"),
        ("POST", "/users"),
        ("GET", "/users/{id}"),
        ("PATCH", "/users/{id}"),
        ("DELETE", "/users/{id}"),
        ("GET", "/users/{id}/export"),
    ],
)
async def test_members_do_not_govern_users(
    admin: Person, member: Person, method: str, path: str
) -> None:
    body = {"username": "zoe"} if method in ("POST", "PATCH") else None
    path = BASE + path.format(id=admin.user.id)
    answer = await member.http.request(method, path, json=body)
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


async def test_a_stranger_is_nobody(anonymous: httpx2.AsyncClient) -> None:
    assert (await anonymous.get(f"{BASE}/users/me")).status_code == 401


async def test_an_unknown_user_is_not_found(admin: Person) -> None:
    path = f"/users/{uuid4()}"
    assert (await admin.get(path)).status_code == 404
    assert (await admin.patch(path, {"suspended": True})).status_code == 404
    assert (await admin.delete(path)).status_code == 404
    assert (await admin.get(f"{path}/export")).status_code == 404
    assert (await admin.get("/users/7")).status_code == 400


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("username", "Ada"),
        ("username", "a" * 65),
        ("username", ""),
        ("name", "a\u202eb"),
        ("name", "x" * 129),
        ("role", "root"),
        ("suspended", True),
    ],
)
async def test_a_user_that_makes_no_sense_is_refused(
    admin: Person, field: str, value: object
) -> None:
    answer = await admin.post("/users", {"username": "zoe"} | {field: value})
    assert answer.status_code == 400
    assert {problem["field"].partition(".")[0] for problem in answer.json()["validations"]} == {
        field
    }


@pytest.mark.parametrize("body", [{"suspended": "yes"}, {"role": "root"}, {"username": "zoe"}])
async def test_a_change_that_makes_no_sense_is_refused(
    admin: Person, member: Person, body: dict[str, object]
) -> None:
    answer = await admin.patch(f"/users/{member.user.id}", body)
    assert answer.status_code == 400
    assert [problem["field"] for problem in answer.json()["validations"]] == list(body)


async def test_a_username_is_given_once(admin: Person, member: Person) -> None:
    answer = await admin.post("/users", {"username": "max"})
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert [problem["field"] for problem in answer.json()["validations"]] == ["username"]


# --- oneself


async def test_who_one_is(admin: Person, member: Person) -> None:
    group = (await admin.post("/groups", {"name": "support"})).json()
    await admin.put(f"/groups/{group['id']}/members/{member.user.id}", None)
    me = (await member.get("/users/me")).json()
    assert me.pop("created_at")
    assert me == {
        "id": str(member.user.id),
        "username": "max",
        "name": "max",
        "role": "member",
        "groups": [{"id": group["id"], "name": "support"}],
        "csrf_token": "",
    }


async def test_one_changes_ones_name_and_nothing_else(member: Person, db: Database) -> None:
    answer = await member.patch("/users/me", {"name": " Max M. "})
    assert answer.json()["name"] == "Max M."
    assert (await member.patch("/users/me", {"role": "admin"})).status_code == 400
    assert (await member.patch("/users/me", {"name": ""})).status_code == 400
    assert (await member.get("/users/me")).json()["role"] == "member"
    assert await lines(db, member.user.id) == [("update", {"name": "max"}, {"name": "Max M."})]


# --- everybody


async def test_users_are_searched_and_paged(admin: Person, member: Person) -> None:
    for name in ("amy", "bob", "zoe_x"):
        await admin.post("/users", {"username": name.replace("_", "."), "name": name.upper()})

    async def names(**query: Any) -> tuple[list[str], bool]:
        found = (await admin.get("/users", params=query)).json()
        return [user["username"] for user in found["users"]], found["has_more"]

    assert await names() == (["ada", "amy", "bob", "max", "zoe.x"], False)
    assert await names(q="E_X") == (["zoe.x"], False)
    assert await names(q="%") == ([], False)
    assert await names(q="a", limit=2) == (["ada", "amy"], True)
    amy = (await admin.get("/users", params={"q": "amy"})).json()["users"][0]["id"]
    assert await names(q="a", limit=2, after_id=amy) == (["max"], False)
    assert (await admin.get("/users", params={"limit": 0})).status_code == 400
    assert (await admin.get("/users", params={"after_id": "x"})).status_code == 400
    gone = await admin.get("/users", params={"after_id": str(uuid4())})
    assert gone.status_code == 400
    assert [problem["field"] for problem in gone.json()["validations"]] == ["after_id"]


async def test_a_user_is_made_shown_and_changed(admin: Person, db: Database) -> None:
    made = (await admin.post("/users", {"username": "zoe", "role": "member"})).json()
    assert (made["name"], made["suspended"], made["last_used_at"]) == ("zoe", False, None)
    assert made["groups"] == []
    changed = await admin.patch(f"/users/{made['id']}", {"name": "Zoe", "role": "admin"})
    assert changed.json() == made | {"name": "Zoe", "role": "admin"}
    assert (await admin.get(f"/users/{made['id']}")).json() == changed.json()
    assert [line[0] for line in await lines(db, made["id"])] == ["create", "update"]
    assert (await lines(db, made["id"]))[1][1:] == (
        {"name": "zoe", "role": "member"},
        {"name": "Zoe", "role": "admin"},
    )


async def test_it_is_shown_when_they_were_last_here(admin: Person, member: Person) -> None:
    assert (await admin.get(f"/users/{member.user.id}")).json()["last_used_at"] is None
    await member.get("/users/me")
    assert (await admin.get(f"/users/{member.user.id}")).json()["last_used_at"] is not None


# --- the last administrator


@pytest.mark.parametrize("body", [{"suspended": True}, {"role": "member"}])
async def test_the_last_administrator_stays(
    admin: Person, db: Database, body: dict[str, object]
) -> None:
    other = (await admin.post("/users", {"username": "bob", "role": "admin"})).json()["id"]
    assert (await admin.patch(f"/users/{other}", {"suspended": True})).status_code == 200
    answer = await admin.patch(f"/users/{admin.user.id}", body)
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert (await admin.get("/users/me")).json()["role"] == "admin"
    assert await lines(db, admin.user.id) == []


async def test_nobody_erases_themselves(admin: Person, app: FastAPI, db: Database) -> None:
    await enter(app, db, "bob", "admin")
    assert (await admin.delete(f"/users/{admin.user.id}")).status_code == 409
    assert (await admin.get("/users/me")).status_code == 200


async def test_two_administrators_cannot_remove_each_other_at_once(
    admin: Person, app: FastAPI, db: Database, database_url: str
) -> None:
    bob = await enter(app, db, "bob", "admin")
    async with transaction(database_url) as holder:
        await holder.execute("SELECT 1 FROM users WHERE role = 'admin' FOR NO KEY UPDATE")
        both = [
            asyncio.create_task(admin.patch(f"/users/{bob.user.id}", {"role": "member"})),
            asyncio.create_task(bob.delete(f"/users/{admin.user.id}")),
        ]
        await holder.waiting(2)
    assert sorted([(await answer).status_code for answer in both]) in ([200, 409], [204, 409])
    rows = await db.fetch("SELECT 1 FROM users WHERE role = 'admin' AND NOT suspended")
    assert len(rows) == 1


# --- suspending


async def test_a_suspended_user_can_do_nothing_until_they_may_again(
    model: str, admin: Person, member: Person, db: Database
) -> None:
    chat = await new_chat(member)
    await member.post(f"/chats/{chat}/messages", {"content": text("more")})
    before = await policy_version(db)
    answer = await admin.patch(f"/users/{member.user.id}", {"suspended": True})
    assert answer.json()["suspended"]
    assert await policy_version(db) > before
    assert (await member.get("/users/me")).status_code == 401
    assert await statuses(db) == ["interrupted", "cancelled"]
    await admin.patch(f"/users/{member.user.id}", {"suspended": False})
    assert (await member.get(f"/chats/{chat}")).json()["status"] == "waiting"
    assert await lines(db, member.user.id) == [
        ("update", {"suspended": False}, {"suspended": True}),
        ("update", {"suspended": True}, {"suspended": False}),
    ]


async def test_a_turn_that_runs_is_told_to_stop(
    model: str, admin: Person, member: Person, db: Database
) -> None:
    await new_chat(admin)
    assert len(await work.claim_turns(db, "w", 1)) == 1
    await new_chat(member)
    assert len(await work.claim_turns(db, "w", 1)) == 1
    await admin.patch(f"/users/{member.user.id}", {"suspended": True})
    assert await statuses(db) == ["running", "interrupting"]


async def test_what_was_queued_when_nobody_looked_goes_on_with_its_user(
    model: str, admin: Person, member: Person, db: Database
) -> None:
    chat = await new_chat(member)
    await member.post(f"/chats/{chat}/messages", {"content": text("more")})
    await db.fetch("UPDATE users SET suspended = true WHERE id = $1", member.user.id)
    await db.fetch(
        """UPDATE turns SET status = 'interrupted', finished_at = clock_timestamp()
        WHERE status = 'pending'"""
    )
    await admin.patch(f"/users/{member.user.id}", {"suspended": False})
    assert await statuses(db) == ["interrupted", "pending"]


@pytest.mark.parametrize("redis_is", ["there", "away"])
async def test_streams_of_a_suspended_user_close_and_no_others(
    model: str,
    app: FastAPI,
    settings: Settings,
    valkey: Valkey,
    admin: Person,
    member: Person,
    redis_is: str,
) -> None:
    chat = await new_chat(member)
    stream = f"/chats/{chat}/stream"
    async with (
        serving(app, settings) as address,
        open_socket(address, "/chats/watch", admin) as watched,
        open_socket(address, stream, member) as socket,
        open_socket(address, "/chats/watch", member) as watch,
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {member.token}"}) as http,
        http.stream("GET", f"http://{address}{BASE}{stream}") as sse,
    ):
        await heard(socket, "status")
        if redis_is == "away":
            valkey.kill()
        answer = await admin.patch(f"/users/{member.user.id}", {"suspended": True})
        assert answer.status_code == 200
        for each in (socket, watch):
            assert (await heard(each, "chat_error"))["data"]["error"]["kind"] == "auth"
            assert await closing_code(each) == 1008
        async with asyncio.timeout(20):
            last = [line async for line in sse.aiter_lines() if line.startswith("event:")][-1]
        assert last == "event: chat_error"
        assert {permit.user_id for permit in app.state.parts.permits._held} == {admin.user.id}
        await watched.ping()
    if redis_is == "away":
        await valkey.restart()


# --- export and erasure


async def test_an_export_holds_everything_of_one_user_and_no_secret(
    model: str, admin: Person, member: Person, db: Database
) -> None:
    await new_chat(admin, "not theirs")
    chat = await new_chat(member, "canary")
    await member.put("/chats/config/user-prompt", {"custom_prompt": "be brief"})
    data = b"some bytes \n of text"
    file = (await member.http.post(f"{BASE}/chats/files?name=a.txt", content=data)).json()
    await db.fetch('UPDATE chat_messages SET content = json \'[{\n"type": "text"}]\'')
    answer = await member.get("/users/me/export")
    assert answer.headers["content-type"] == "application/x-ndjson"
    told = [orjson.loads(line) for line in answer.text.splitlines()]
    assert [line["type"] for line in told] == [
        "user",
        "setting",
        "token",
        "chat",
        "turn",
        "message",
        "file",
        "end",
    ]
    assert told[3]["id"] == chat
    assert told[3]["title"] == "canary"
    assert (told[6]["id"], base64.b64decode(told[6]["data"])) == (file["id"], data)
    assert "sha256" not in told[2]
    assert "not theirs" not in answer.text
    theirs = await admin.get(f"/users/{member.user.id}/export")
    assert theirs.status_code == 200
    assert [line[0] for line in await lines(db, member.user.id)] == ["export", "export"]


async def test_an_erased_user_leaves_no_text_behind(
    model: str, app: FastAPI, admin: Person, db: Database
) -> None:
    canary = "canary7f3a"
    victim = await enter(app, db, canary, "member")
    chat = await new_chat(victim, f"{canary} says hello")
    (claim,) = await work.claim_turns(db, "w", 1)
    await db.fetch(
        """INSERT INTO tool_calls (chat_id, turn_id, user_id, step, position, tool_call_id,
            tool_name, original_name, definition_hash, safe, state, attempt, arguments, result)
        VALUES ($1, $2, $3, 1, 1, 'c', 't', '', '', false, 'done', 1, $4, $5)""",
        UUID(chat),
        claim.turn_id,
        claim.owner_id,
        canary,
        f'{{"result": "{canary}"}}',
    )
    await victim.put("/chats/config/user-prompt", {"custom_prompt": canary})
    await victim.http.post(f"{BASE}/chats/files?name={canary}.txt", content=canary.encode())
    await victim.post("/users/me/tokens", {"name": canary})
    await victim.patch("/users/me", {"name": f"{canary} the first"})
    await victim.patch(f"/chats/{chat}", {"title": canary, "labels": {"a": canary}})
    await victim.post(f"/chats/{chat}/messages", {"content": text(canary)})
    group = (await admin.post("/groups", {"name": "g"})).json()["id"]
    await admin.put(f"/groups/{group}/members/{victim.user.id}", None)
    await admin.patch(f"/users/{victim.user.id}", {"role": "admin"})
    await db.fetch(
        """INSERT INTO audit_log (actor_id, action, target_type, target_id, request_id, after)
        VALUES ($1, 'deny', 'approval', 'x', '', $2::jsonb)""",
        victim.user.id,
        orjson.dumps({"decision": "deny", "reason": canary}).decode(),
    )
    await db.fetch(
        """INSERT INTO usage_entries (owner_id, chat_id, kind, estimated)
        VALUES ($1, $2, 'step', false)""",
        victim.user.id,
        UUID(chat),
    )
    assert canary in await everything(db)
    assert (await admin.delete(f"/users/{victim.user.id}")).status_code == 204
    assert canary not in await everything(db)
    assert (await admin.delete(f"/users/{victim.user.id}")).status_code == 404
    assert (await victim.get("/users/me")).status_code == 401
    assert [line[0] for line in await lines(db, victim.user.id)][-1] == "erase"
    assert (await lines(db, "x"))[0][2] == {"decision": "deny"}
    assert [len(await db.fetch(f"SELECT 1 FROM {t}")) for t in ("usage_entries", "tool_calls")] == [
        1,
        1,
    ]


async def test_what_an_erased_administrator_did_to_others_is_still_told(
    model: str, app: FastAPI, admin: Person, member: Person, db: Database
) -> None:
    boss = await enter(app, db, "bob", "admin")
    turn = await cancelled(boss, member, db, "too long")
    assert (await admin.delete(f"/users/{boss.user.id}")).status_code == 204
    ((_, before, after),) = await lines(db, turn)
    assert before["status"] == "pending"
    assert after == {
        "status": "interrupted",
        "owner_id": str(member.user.id),
        "reason": "too long",
    }


async def test_what_was_written_about_an_erased_users_turn_goes(
    model: str, admin: Person, member: Person, db: Database
) -> None:
    turn = await cancelled(admin, member, db, "Max talks of canaries")
    assert (await admin.delete(f"/users/{member.user.id}")).status_code == 204
    ((_, before, after),) = await lines(db, turn)
    assert before["status"] == "pending"
    assert after == {"status": "interrupted", "owner_id": str(member.user.id)}


async def test_no_hash_of_what_an_erased_user_called_stays(
    admin: Person, member: Person, db: Database
) -> None:
    for arguments, digest in (("{}", None), (None, "44136fa3")):
        await db.fetch(
            """INSERT INTO tool_calls (chat_id, turn_id, user_id, step, position, tool_call_id,
                tool_name, original_name, definition_hash, safe, state, attempt, arguments,
                arguments_sha256)
            VALUES ($1, $1, $2, 1, 1, 'c', 't', '', '', false, 'done', 1, $3, $4)""",
            uuid4(),
            member.user.id,
            arguments,
            digest,
        )
    assert (await admin.delete(f"/users/{member.user.id}")).status_code == 204
    told = (await admin.get("/audit", params={"kind": "call"})).json()["lines"]
    assert [line["arguments_sha256"] for line in told] == [None, None]


async def cancelled(by: Person, owner: Person, db: Database, reason: str) -> str:
    """A turn of the owner's that somebody else has ended."""
    await new_chat(owner)
    (row,) = await db.fetch("SELECT id FROM turns")
    answer = await by.post(f"/turns/{row['id']}/cancel", {"reason": reason})
    assert answer.status_code == 200, answer.text
    return str(row["id"])


async def everything(db: Database) -> str:
    """Every row of every table, bytes also as the text they hold."""
    tables = await db.fetch(
        "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename"
    )
    rows: list[str] = []
    for table in tables:
        found = await db.fetch(f"SELECT x::text AS line FROM {table['tablename']} x")
        rows += [row["line"] for row in found]
    files = await db.fetch("SELECT data FROM files")
    return "\n".join([*rows, *(row["data"].decode() for row in files)])
