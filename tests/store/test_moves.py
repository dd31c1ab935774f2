"""Every status with every command: a turn only moves as the table of moves allows."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from uuid import UUID

import pytest

from chatd.core.chats import ChatPatch, NewTurn
from chatd.core.errors import ChatdError
from chatd.core.items import NewItem
from chatd.core.turns import ENDED, MOVES, TurnStatus
from chatd.core.work import Claim
from chatd.store import items, sweeping, work
from chatd.store.answering import answer_item
from chatd.store.editing import delete_chat, patch_chat
from chatd.store.history import Rewrite, clear_chat, rewrite
from chatd.store.ids import new_id
from chatd.store.queueing import delete_queued, interrupt_chat, promote_queued
from tests.seed import Seed, planned_call
from tests.store.working import finish
from tests.waiting import one

ASKED = """
INSERT INTO open_items (id, chat_id, turn_id, owner_id, step, position, tool_call_id, kind)
VALUES ($1, $2, $3, $4, 1, 1, 'call-1-1', 'approval')
"""

Command = Callable[[Seed, Claim], Awaitable[object]]


async def send(seed: Seed, claim: Claim) -> None:
    await seed.send(claim.chat_id)


async def archive(seed: Seed, claim: Claim) -> None:
    await patch_chat(seed.db, seed.actor, claim.chat_id, ChatPatch(archived=True))


async def unarchive(seed: Seed, claim: Claim) -> None:
    await seed.db.fetch("UPDATE chats SET archived = true")
    await patch_chat(seed.db, seed.actor, claim.chat_id, ChatPatch(archived=False))


async def delete(seed: Seed, claim: Claim) -> None:
    await delete_chat(seed.db, seed.actor, claim.chat_id)


async def send_interrupting(seed: Seed, claim: Claim) -> None:
    await seed.send(claim.chat_id, interrupt=True)


async def interrupt(seed: Seed, claim: Claim) -> None:
    await interrupt_chat(seed.db, seed.actor, claim.chat_id)


async def take_out(seed: Seed, claim: Claim) -> None:
    await delete_queued(seed.db, seed.actor, claim.chat_id, claim.turn_id)


async def run_next(seed: Seed, claim: Claim) -> None:
    await promote_queued(seed.db, seed.actor, claim.chat_id, claim.turn_id)


async def regenerate(seed: Seed, claim: Claim) -> None:
    asked = Rewrite(seed.actor, claim.chat_id, None, NewTurn([]), None, new_id(), None)
    await rewrite(seed.db, asked)


async def clear(seed: Seed, claim: Claim) -> None:
    await clear_chat(seed.db, seed.actor, claim.chat_id)


async def claim_it(seed: Seed, _: Claim) -> None:
    await work.claim_turns(seed.db, "w", 1)


async def step(seed: Seed, claim: Claim) -> None:
    await work.commit_step(seed.db, claim, [], [], [], None)


async def complete(seed: Seed, claim: Claim) -> None:
    await finish(seed, claim)


async def fail(seed: Seed, claim: Claim) -> None:
    await finish(seed, claim, status="failed")


async def hand_back(seed: Seed, claim: Claim) -> None:
    await work.hand_back(seed.db, claim)


async def expire(seed: Seed, claim: Claim) -> None:
    await seed.db.fetch(
        "UPDATE turns SET lease_expires_at = clock_timestamp() WHERE id = $1", claim.turn_id
    )
    await sweeping.expire_turn(seed.db, claim.turn_id, claim.chat_id)


async def expire_for_good(seed: Seed, claim: Claim) -> None:
    await seed.db.fetch("UPDATE turns SET lost = 2 WHERE id = $1", claim.turn_id)
    await expire(seed, claim)


async def promote(seed: Seed, claim: Claim) -> None:
    await sweeping.promote_stranded(seed.db, claim.chat_id)


async def park(seed: Seed, claim: Claim) -> None:
    waiting = [(planned_call(1), NewItem("approval", {}, 60))]
    await items.park_turn(seed.db, claim, 1, [], waiting, [])


async def answer(seed: Seed, claim: Claim) -> None:
    chat_id, item_id = claim.chat_id, await _item(seed)
    await answer_item(seed.db, seed.actor, chat_id, item_id, "approval", {"decision": "deny"})


async def overdue(seed: Seed, claim: Claim) -> None:
    await items.expire_item(seed.db, await _item(seed), claim.chat_id)


async def _item(seed: Seed) -> UUID:
    """The open item, or one that nobody knows."""
    found = await seed.db.fetch("SELECT id FROM open_items")
    return found[0]["id"] if found else new_id()


WORKERS: tuple[Command, ...] = (claim_it, step, park, complete, fail, hand_back)
USERS: tuple[Command, ...] = (
    send,
    archive,
    unarchive,
    delete,
    send_interrupting,
    interrupt,
    take_out,
    run_next,
    regenerate,
    clear,
    answer,
)
SWEEPERS: tuple[Command, ...] = (expire, expire_for_good, overdue, promote)
COMMANDS = WORKERS + USERS + SWEEPERS


async def put(seed: Seed, status: TurnStatus) -> Claim:
    """A chat whose only turn has this status, held by us if it is leased."""
    claim = await seed.claimed()
    await seed.db.fetch(
        """UPDATE turns SET status = $2::text, lease_id = CASE WHEN $3 THEN lease_id END,
            finished_at = CASE WHEN $4 THEN clock_timestamp() END,
            user_message_id = CASE WHEN $2::text = 'queued' THEN NULL ELSE user_message_id END
        WHERE id = $1""",
        claim.turn_id,
        status,
        status in {TurnStatus.RUNNING, TurnStatus.INTERRUPTING},
        status in ENDED,
    )
    if status is TurnStatus.QUEUED:
        await seed.db.fetch("DELETE FROM chat_messages")
    if status is TurnStatus.REQUIRES_ACTION:
        await seed.db.fetch(ASKED, new_id(), claim.chat_id, claim.turn_id, claim.owner_id)
    return claim


@pytest.mark.parametrize(
    "command", WORKERS + USERS + SWEEPERS, ids=lambda command: command.__name__
)
async def test_a_turn_moves_as_the_table_allows(seed: Seed, command: Command) -> None:
    for status in TurnStatus:
        claim = await put(seed, status)
        before = await one(seed.db, "SELECT version FROM chats WHERE id = $1", claim.chat_id)
        with suppress(ChatdError):
            await command(seed, claim)
        found = await one(
            seed.db, "SELECT status, lease_id, version FROM turns WHERE id = $1", claim.turn_id
        )
        after = TurnStatus(found["status"])
        assert after == status or after in MOVES[status], f"{status} became {after}"
        chat = await one(seed.db, "SELECT version FROM chats WHERE id = $1", claim.chat_id)
        if after != status:
            assert chat["version"] == found["version"] == before["version"] + 1
        if status in ENDED:
            assert after == status
        await seed.db.fetch("DELETE FROM chats")
