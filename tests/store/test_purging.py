"""Removing what is over."""

import asyncio
from hashlib import sha256
from uuid import UUID

import pytest

from chatd.core.chats import ChatPatch, Once
from chatd.core.config import DeploymentConfig
from chatd.store import purging, work
from chatd.store.editing import delete_chat, patch_chat
from tests.seed import Seed
from tests.store.working import commit_calls, finish, outcome
from tests.waiting import WITHIN_S, one, transaction


async def count(seed: Seed, table: str) -> int:
    return (await one(seed.db, f"SELECT count(*) FROM {table}"))[0]


async def test_a_deleted_chats_rows_go_and_its_journal_keeps_no_words(seed: Seed) -> None:
    kept, gone = await seed.claimed(), await seed.claimed()
    for claim in (kept, gone):
        await commit_calls(seed, claim)
        await work.mark_sent(seed.db, claim, 1, [1], 1)
        await work.record_result(seed.db, claim, outcome(1))
    await delete_chat(seed.db, seed.actor, gone.chat_id)
    assert await purging.purge_chats(seed.db) == 0
    assert await purging.purge_chats(seed.db, grace_s=0) == 1
    assert [await count(seed, table) for table in ("chats", "turns", "chat_messages")] == [1, 1, 2]
    lines = await seed.db.fetch(
        "SELECT tool_name, state, user_id, arguments, result, arguments_sha256 FROM tool_calls"
        " WHERE turn_id = $1 ORDER BY position",
        gone.turn_id,
    )
    owner, digest = seed.actor.user_id, sha256(b"{}").hexdigest()
    assert [tuple(line) for line in lines] == [
        ("demo__add", "done", owner, None, None, digest),
        ("demo__add", "cancelled", owner, None, None, digest),
    ]
    untouched = await one(
        seed.db, "SELECT count(arguments) FROM tool_calls WHERE turn_id = $1", kept.turn_id
    )
    assert untouched[0] == 2
    assert await purging.purge_chats(seed.db, grace_s=0) == 0


async def test_a_journals_lines_are_forgotten_only_after_their_chat(seed: Seed) -> None:
    kept, gone = await seed.claimed(), await seed.claimed()
    for claim in (kept, gone):
        await commit_calls(seed, claim)
    await seed.db.fetch("UPDATE tool_calls SET intended_at = intended_at - interval '40 days'")
    await delete_chat(seed.db, seed.actor, gone.chat_id)
    last = await purging.forget_calls(seed.db, 30)
    assert (last is not None, await count(seed, "tool_calls")) == (True, 4)
    await purging.purge_chats(seed.db, grace_s=0)
    await purging.forget_calls(seed.db, 30)
    rows = await seed.db.fetch("SELECT DISTINCT chat_id FROM tool_calls")
    assert [row["chat_id"] for row in rows] == [kept.chat_id]


async def test_the_journals_of_the_chats_below_lose_their_words_too(seed: Seed) -> None:
    root, child = await seed.claimed(), await seed.claimed()
    await commit_calls(seed, child)
    await finish(seed, child)
    await below(seed, child.chat_id, root.chat_id)
    await delete_chat(seed.db, seed.actor, root.chat_id)
    await purging.purge_chats(seed.db, grace_s=0)
    assert await count(seed, "chats") == 0
    left = await one(seed.db, "SELECT count(*), count(arguments) FROM tool_calls")
    assert tuple(left) == (2, 0)


@pytest.mark.parametrize("statement", [purging.PURGE_CHATS, purging.PURGE_ARCHIVED])
async def test_the_journal_is_not_searched_from_end_to_end(statement: str, seed: Seed) -> None:
    """It keeps a line for every call ever made, and this runs every minute."""
    await seed.db.fetch(
        """WITH chat AS (
            INSERT INTO chats (id, owner_id, title, system_prompt, client_type, mcp_server_ids,
                archived, pin_order)
            SELECT gen_random_uuid(), $1, '', '', 'api', '{}', false, 0
            FROM generate_series(1, 3000) RETURNING id
        )
        INSERT INTO tool_calls (chat_id, turn_id, user_id, step, position, tool_call_id, tool_name,
            original_name, definition_hash, safe, state, attempt)
        SELECT id, gen_random_uuid(), $1, 1, n, '', '', '', '', false, 'done', 1
        FROM chat, generate_series(1, 5) n""",
        seed.actor.user_id,
    )
    await seed.db.fetch("ANALYZE chats, tool_calls")
    plan = await seed.db.fetch(f"EXPLAIN {statement.replace('$1', '1')}")
    assert "Seq Scan on tool_calls" not in "".join(row[0] for row in plan)


async def test_archived_chats_go_when_their_time_is_over(seed: Seed) -> None:
    old, young, open_chat = [await seed.chat_id() for _ in range(3)]
    for chat_id in (old, young):
        await patch_chat(seed.db, seed.actor, chat_id, ChatPatch(archived=True))
    await age(seed, "archived_at", old)
    config = DeploymentConfig(retention_days=5)
    assert await purging.purge_archived(seed.db, DeploymentConfig(retention_days=0)) == 0
    assert await purging.purge_archived(seed.db, config) == 1
    left = {row["id"] for row in await seed.db.fetch("SELECT id FROM chats")}
    assert left == {young, open_chat}


async def test_files_that_no_chat_names_go_after_a_day(seed: Seed) -> None:
    chat_id = await seed.chat_id()
    await seed.db.fetch(
        """INSERT INTO files (id, owner_id, kind, name, media_type, size, sha256, data, created_at)
        SELECT gen_random_uuid(), $1, 'upload', name, 'text/plain', 1, 'x', 'x',
            clock_timestamp() - age
        FROM (VALUES ('old', interval '2 days'), ('named', interval '2 days'),
            ('new', interval '1 hour')) AS files(name, age)""",
        seed.actor.user_id,
    )
    await seed.db.fetch(
        "INSERT INTO chat_files (chat_id, file_id) SELECT $1, id FROM files WHERE name = 'named'",
        chat_id,
    )
    assert await purging.purge_files(seed.db) == 1
    rows = await seed.db.fetch("SELECT name FROM files ORDER BY name")
    assert [row["name"] for row in rows] == ["named", "new"]


async def age(seed: Seed, column: str, chat_id: UUID, days: int = 10) -> None:
    await seed.db.fetch(
        f"UPDATE chats SET {column} = {column} - make_interval(days => $2) WHERE id = $1",
        chat_id,
        days,
    )


async def below(seed: Seed, child: UUID, root: UUID) -> None:
    await seed.db.fetch(
        "UPDATE chats SET parent_chat_id = $2, root_chat_id = $2 WHERE id = $1", child, root
    )


async def test_only_keys_past_their_day_are_forgotten(seed: Seed) -> None:
    old, new = (Once("/chats", key, b"x" * 32) for key in ("old", "new"))
    first = await seed.chat("a", old)
    await seed.db.fetch("UPDATE turns SET queued_at = queued_at - interval '24 hours'")
    await seed.chat("b", new)
    assert await purging.forget_keys(seed.db) == 1
    assert await purging.forget_keys(seed.db) == 0
    assert (await seed.chat("a", old)).turn["id"] != first.turn["id"]
    assert (await seed.chat("b", new)).version == 0


async def test_tokens_are_forgotten_long_after_they_stopped_working(seed: Seed) -> None:
    await seed.db.fetch(
        """INSERT INTO api_tokens (id, user_id, name, token_sha256, revoked_at, expires_at)
        SELECT gen_random_uuid(), $1, name, name::bytea, clock_timestamp() - revoked,
            clock_timestamp() - expired
        FROM (VALUES ('live', NULL, NULL), ('will expire', NULL, interval '-1 day'),
            ('revoked now', interval '1 day', NULL), ('expired now', NULL, interval '1 day'),
            ('revoked', interval '31 days', interval '-1 day'),
            ('expired', NULL, interval '31 days')) AS given(name, revoked, expired)""",
        seed.actor.user_id,
    )
    assert await purging.forget_tokens(seed.db) == 2
    assert await purging.forget_tokens(seed.db) == 0
    rows = await seed.db.fetch("SELECT name FROM api_tokens ORDER BY name")
    assert [row["name"] for row in rows] == ["expired now", "live", "revoked now", "will expire"]


async def test_forgetting_keys_waits_for_nobody(seed: Seed, database_url: str) -> None:
    """A command may hold one of these turns and wait for another."""
    held = await seed.chat("a", Once("/chats", "held", b"x" * 32))
    await seed.chat("b", Once("/chats", "free", b"x" * 32))
    await seed.db.fetch("UPDATE turns SET queued_at = queued_at - interval '24 hours'")
    async with transaction(database_url) as holder, asyncio.timeout(WITHIN_S):
        await holder.execute("SELECT 1 FROM turns WHERE id = $1 FOR UPDATE", UUID(held.turn["id"]))
        assert await purging.forget_keys(seed.db) == 1
    assert await purging.forget_keys(seed.db) == 1
