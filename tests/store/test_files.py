"""Keeping files: whose they are, which chat names them, what a lost worker may still write."""

import asyncio
from uuid import UUID, uuid4

import pytest

from chatd.core.errors import BadRequest, LeaseLost, NotFound
from chatd.core.files import PLAIN, NewFile, new_upload
from chatd.core.messages import FilePart, Part
from chatd.store import files
from chatd.store.db import Database
from tests.seed import Seed, make_user, said
from tests.store.working import lose

KEPT = NewFile("big.txt", PLAIN, b"all of it")


async def upload(seed: Seed, words: str = "hello") -> UUID:
    file = new_upload(words.encode(), name=f"{words}.txt")
    return (await files.add_file(seed.db, seed.actor.user_id, file)).id


def naming(*file_ids: UUID) -> list[Part]:
    """A message with these files, as a client sends it."""
    return [
        *said("look"),
        *(
            FilePart(type="file", file_id=str(file_id), media_type="", name="", size=0)
            for file_id in file_ids
        ),
    ]


async def child_of(seed: Seed, parent: UUID) -> UUID:
    child = await seed.chat_id()
    await seed.db.fetch("UPDATE chats SET parent_chat_id = $1 WHERE id = $2", parent, child)
    return child


async def test_a_file_of_somebody_else_is_not_found(seed: Seed) -> None:
    file_id, eve = await upload(seed), (await make_user(seed.db, "eve")).user_id
    for read in (files.file_info, files.file_data):
        with pytest.raises(NotFound):
            await read(seed.db, eve, file_id)
    with pytest.raises(BadRequest, match="One or more file IDs are invalid"):
        await files.resolve_files(seed.db, eve, naming(file_id))
    assert await files.file_data(seed.db, seed.actor.user_id, file_id) == b"hello"


async def test_only_unknown_files_are_named(seed: Seed) -> None:
    known, unknown = await upload(seed), uuid4()
    with pytest.raises(BadRequest) as refused:
        await files.resolve_files(seed.db, seed.actor.user_id, naming(known, unknown, unknown))
    assert refused.value.detail == f"Invalid IDs: {unknown}"


async def test_a_message_without_files_asks_nobody(seed: Seed, db: Database) -> None:
    content = said("hello")
    await db.close()
    assert await files.resolve_files(db, seed.actor.user_id, content) is content


async def test_a_file_is_linked_once(seed: Seed) -> None:
    chat_id, file_id = await seed.chat_id(), await upload(seed)
    for _ in range(2):
        linked = await files.link_files(seed.db, chat_id, [file_id])
        assert [file["id"] for file in linked.files] == [str(file_id)]
        assert linked.left_out == 0


async def test_a_file_of_somebody_else_is_never_linked(seed: Seed) -> None:
    eve = Seed(seed.db, await make_user(seed.db, "eve"), seed.model_id)
    linked = await files.link_files(seed.db, await seed.chat_id(), [await upload(eve)])
    assert (linked.files, linked.left_out) == ([], 1)


async def test_messages_sent_together_do_not_pass_the_limit(seed: Seed) -> None:
    chat_id = await seed.chat_id()
    ids = [await upload(seed, f"file {number}") for number in range(60)]
    await asyncio.gather(
        *[files.link_files(seed.db, chat_id, ids[start : start + 10]) for start in range(0, 60, 10)]
    )
    linked = await files.link_files(seed.db, chat_id, ids)
    assert (len(linked.files), linked.left_out) == (50, 10)


async def test_a_turn_reads_what_its_chat_or_its_owner_has(seed: Seed) -> None:
    chat_id, own = await seed.chat_id(), await upload(seed, "own")
    eve = Seed(seed.db, await make_user(seed.db, "eve"), seed.model_id)
    foreign, shared = await upload(eve, "foreign"), await upload(eve, "shared")
    await seed.db.fetch("INSERT INTO chat_files VALUES ($1, $2)", chat_id, shared)
    found = await files.load_files(seed.db, chat_id, [own, foreign, shared, uuid4()])
    assert found == {str(own): b"own", str(shared): b"shared"}


async def test_a_lost_worker_keeps_no_result(seed: Seed) -> None:
    claim = await seed.claimed()
    await lose(seed, claim)
    with pytest.raises(LeaseLost):
        await files.keep_result(seed.db, claim, uuid4(), KEPT)
    assert await seed.db.fetch("SELECT 1 FROM files") == []


async def test_a_result_kept_again_is_replaced(seed: Seed) -> None:
    claim, file_id = await seed.claimed(), uuid4()
    await files.keep_result(seed.db, claim, file_id, KEPT)
    await files.keep_result(seed.db, claim, file_id, NewFile("big.txt", PLAIN, b"anew"))
    assert await files.read_result_file(seed.db, claim.chat_id, file_id) == "anew"
    info = await files.file_info(seed.db, seed.actor.user_id, file_id)
    assert (info.kind, info.size) == ("result", 4)


async def test_a_result_is_read_in_its_chat_and_in_those_below(seed: Seed) -> None:
    claim, file_id = await seed.claimed(), uuid4()
    await files.keep_result(seed.db, claim, file_id, KEPT)
    child = await child_of(seed, claim.chat_id)
    for chat_id in (claim.chat_id, child):
        assert await files.read_result_file(seed.db, chat_id, file_id) == "all of it"
    assert await files.read_result_file(seed.db, await seed.chat_id(), file_id) is None


async def test_an_upload_is_no_result_and_a_result_no_upload(seed: Seed) -> None:
    claim, result_id, upload_id = await seed.claimed(), uuid4(), await upload(seed)
    await files.keep_result(seed.db, claim, result_id, KEPT)
    linked = await files.link_files(seed.db, claim.chat_id, [upload_id])
    assert [file["id"] for file in linked.files] == [str(upload_id)]
    assert await files.read_result_file(seed.db, claim.chat_id, upload_id) is None
    with pytest.raises(BadRequest):
        await files.resolve_files(seed.db, seed.actor.user_id, naming(result_id))
