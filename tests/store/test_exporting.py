"""An export: page after page, nothing twice, nothing left out, nothing of others."""

import base64
from typing import Any

import orjson

from chatd.core.files import new_upload
from chatd.store import files
from chatd.store.editing import delete_chat
from chatd.store.exporting import PAGE, export_user
from tests.seed import Seed, make_user
from tests.store.working import commit_calls, park


async def exported(seed: Seed) -> list[Any]:
    told = b"".join([lines async for lines in export_user(seed.db, seed.actor.user_id)])
    assert told.endswith(b"\n")
    return [orjson.loads(line) for line in told.splitlines()]


def of(told: list[Any], kind: str) -> list[Any]:
    return [line for line in told if line["type"] == kind]


async def test_pages_join_without_a_gap_or_a_repeat(seed: Seed) -> None:
    many = 2 * PAGE + 1
    chat_id = await seed.chat_id()
    for _ in range(many - 1):
        await seed.chat_id()
    await seed.db.fetch(
        """INSERT INTO chat_messages (chat_id, turn_id, step, position, role, content)
        SELECT t.chat_id, t.id, n, 0, 'assistant', '[]' FROM turns t, generate_series(1, $2) n
        WHERE t.chat_id = $1""",
        chat_id,
        many - 1,
    )
    await seed.db.fetch(
        """INSERT INTO usage_entries (owner_id, chat_id, kind, estimated)
        SELECT $1, $2, 'step', false FROM generate_series(1, $3)""",
        seed.actor.user_id,
        chat_id,
        many,
    )
    told = await exported(seed)
    for kind, key in (("chat", "id"), ("turn", "id")):
        assert len({line[key] for line in of(told, kind)}) == len(of(told, kind)) == many
    messages = [line["id"] for line in of(told, "message") if line["chat_id"] == str(chat_id)]
    assert messages == sorted(set(messages))
    assert len(messages) == many
    assert len(of(told, "usage")) == many
    assert told[-1] == {"type": "end"}


async def test_calls_and_what_turns_wait_for_are_told_with_their_chat(seed: Seed) -> None:
    claim = await seed.claimed()
    await park(seed, claim)
    told = await exported(seed)
    assert [line["type"] for line in told][1:] == [
        "chat",
        "turn",
        "message",
        "message",
        "tool_call",
        "tool_call",
        "end",
    ]
    (turn,) = of(told, "turn")
    assert [item["kind"] for item in turn["open_items"]] == ["tool_result"]
    assert {line["chat_id"] for line in of(told, "tool_call")} == {str(claim.chat_id)}


async def test_what_is_queued_is_told_once_with_its_turn(seed: Seed) -> None:
    chat_id = await seed.chat_id("first")
    await seed.send(chat_id, "second")
    first, second = of(await exported(seed), "turn")
    assert first["content"] is None
    assert second["content"] == [{"type": "text", "text": "second"}]


async def test_files_come_with_their_bytes(seed: Seed) -> None:
    every_byte = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
    for data in (every_byte, b"words"):
        file = new_upload(data, name='a "name".txt', declared="text/plain")
        await files.add_file(seed.db, seed.actor.user_id, file)
    told = of(await exported(seed), "file")
    assert [base64.b64decode(line["data"]) for line in told] == [every_byte, b"words"]
    assert told[1]["name"].startswith('a "name"')


async def test_nothing_of_others_and_nothing_deleted_is_told(seed: Seed) -> None:
    other = Seed(seed.db, await make_user(seed.db, "bob"), seed.model_id)
    await commit_calls(other, await other.claimed("theirs"))
    await delete_chat(seed.db, seed.actor, await seed.chat_id("deleted"))
    assert [line["type"] for line in await exported(seed)] == ["user", "end"]
