"""The actions: what users, workers and sweepers do, with the real store functions."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest

from chatd.core.chats import ChatPatch, NewTurn
from chatd.core.errors import ChatdError, LeaseLost, turn_error
from chatd.core.items import ItemKind, NewItem
from chatd.core.messages import NewMessage
from chatd.core.tools import CallState, ToolResult
from chatd.core.work import CallOutcome, Claim, PlannedCall
from chatd.loop import result_part
from chatd.store import answering, items, sweeping, work
from chatd.store.db import Database
from chatd.store.editing import delete_chat, patch_chat
from chatd.store.history import Rewrite, clear_chat, rewrite
from chatd.store.ids import new_id
from chatd.store.loading import TurnLoader
from chatd.store.queueing import delete_queued, interrupt_chat, promote_queued
from chatd.store.submitting import submit_turn
from chatd.turn.resume import resume
from tests.machine.picture import Picture, look
from tests.machine.rules import check
from tests.seed import KEYS, Seed, answer, planned_call, said
from tests.store.working import everything, run_out
from tests.waiting import one

WRITES = ["step", "sent", "result", "results", "park", "finish", "back"]

INTERRUPTED = ToolResult("interrupted", is_error=True, outcome="unknown")


@dataclass
class Worker:
    """A claimed turn, as its worker knows it; it may have lost it without knowing."""

    claim: Claim
    step: int
    """Of the next model call."""
    open: list[PlannedCall] = field(default_factory=list[PlannedCall])
    known: dict[int, ToolResult] = field(default_factory=dict[int, ToolResult])
    """Results of the open calls, as far as they are there."""
    journaled: set[int] = field(default_factory=set[int])
    """Those of them that this worker has journaled: a resumed turn's may not be."""

    @property
    def unanswered(self) -> list[PlannedCall]:
        return [planned for planned in self.open if planned.position not in self.known]


class World:
    """Every action ends with a look at all rows and a check of all rules."""

    def __init__(self, seed: Seed) -> None:
        self.seed = seed
        self.db: Database = seed.db
        self.picture: Picture = {}
        self.order: dict[UUID, list[UUID]] = {}
        self.workers: list[Worker] = []
        self._count = 0

    async def do(self, action: Awaitable[object]) -> None:
        """A refused action changes nothing; any other keeps the rules."""
        rows = await everything(self.db)
        refused = False
        try:
            await action
        except ChatdError:
            refused = True
        if refused:
            assert await everything(self.db) == rows, "a refused command changed something"
        after = await look(self.db)
        check(self.picture, after, self.order)
        self.picture = after

    # --- what there is to act on

    @property
    def chats(self) -> list[UUID]:
        return [chat_id for chat_id, chat in self.picture.items() if not chat.row["hidden"]]

    def owns(self, worker: Worker) -> bool:
        chat = self.picture.get(worker.claim.chat_id)
        turn = chat and chat.turns.get(worker.claim.turn_id)
        return bool(turn and turn["lease_id"] == worker.claim.lease_id)

    @property
    def holders(self) -> list[Worker]:
        return [worker for worker in self.workers if self.owns(worker)]

    @property
    def stale(self) -> list[Worker]:
        return [worker for worker in self.workers if not self.owns(worker)]

    def open_items(self) -> list[dict[str, Any]]:
        return [i for chat in self.picture.values() for i in chat.items if i["state"] == "open"]

    # --- users

    async def create(self) -> None:
        accepted = await self.seed.chat(self._words())
        self.order[UUID(accepted.turn["chat_id"])] = [UUID(accepted.turn["id"])]

    async def send(self, chat_id: UUID) -> None:
        accepted = await self.seed.send(chat_id, self._words())
        self.order[chat_id].append(UUID(accepted.turn["id"]))

    async def interject(self, chat_id: UUID) -> None:
        """Send, and stop what runs."""
        new = NewTurn(said(self._words()))
        turn_id = new_id()
        await submit_turn(
            self.db, self.seed.actor, chat_id, new, None, turn_id=turn_id, interrupt=True
        )
        self.order[chat_id].append(turn_id)

    async def interrupt(self, chat_id: UUID) -> None:
        await interrupt_chat(self.db, self.seed.actor, chat_id)

    def queued(self) -> list[tuple[UUID, UUID]]:
        return [(c, turn) for c in self.chats for turn in self.picture[c].of("queued")]

    async def promote(self, place: tuple[UUID, UUID]) -> None:
        chat_id, turn_id = place
        await promote_queued(self.db, self.seed.actor, chat_id, turn_id)
        order, waiting = self.order[chat_id], set(self.picture[chat_id].of("queued"))
        first = next(index for index, known in enumerate(order) if known in waiting)
        order.insert(first, order.pop(order.index(turn_id)))

    async def delete_queued(self, place: tuple[UUID, UUID]) -> None:
        await delete_queued(self.db, self.seed.actor, *place)

    def editable(self) -> list[tuple[UUID, int]]:
        """What users said and still see, in chats that are there."""
        return [
            (chat_id, message["id"])
            for chat_id in self.chats
            for message in self.picture[chat_id].messages
            if message["role"] == "user" and message["step"] == 0 and not message["deleted"]
        ]

    async def edit(self, place: tuple[UUID, int]) -> None:
        await self._rewrite(place[0], place[1], NewTurn(said(self._words())))

    async def regenerate(self, chat_id: UUID) -> None:
        await self._rewrite(chat_id, None, NewTurn([]))

    async def _rewrite(self, chat_id: UUID, message_id: int | None, new: NewTurn) -> None:
        turn_id = new_id()
        asked = Rewrite(self.seed.actor, chat_id, message_id, new, None, turn_id, None)
        await rewrite(self.db, asked)
        self.order[chat_id].append(turn_id)

    async def clear(self, chat_id: UUID) -> None:
        await clear_chat(self.db, self.seed.actor, chat_id)

    async def archive(self, chat_id: UUID, archived: bool) -> None:
        await patch_chat(self.db, self.seed.actor, chat_id, ChatPatch(archived=archived))

    async def delete(self, chat_id: UUID) -> None:
        await delete_chat(self.db, self.seed.actor, chat_id)

    async def answer(self, item: dict[str, Any]) -> None:
        chat_id, actor = item["chat_id"], self.seed.actor
        if item["kind"] != "tool_result":
            given = {"decision": "approve"}
            await answering.answer_item(self.db, actor, chat_id, item["id"], item["kind"], given)
            return
        waiting = [i for i in self.open_items() if i["chat_id"] == chat_id]
        results = {
            i["tool_call_id"]: {"text": "done", "is_error": False}
            for i in waiting
            if i["kind"] == "tool_result"
        }
        await answering.answer_calls(self.db, actor, chat_id, results)

    # --- workers

    async def claim(self) -> None:
        for claim in await work.claim_turns(self.db, "test-worker", 1):
            start = resume(await TurnLoader(self.db, KEYS).load(claim), {})
            worker = Worker(claim, start.next_step)
            if start.open_step is not None:
                answered = start.open_step.answered
                worker.open = [*start.open_step.open, *(planned for planned, _ in answered)]
                worker.known = {planned.position: result for planned, result in answered}
            self.workers.append(worker)

    async def step(self, worker: Worker, calls: int, safe: bool) -> None:
        """The model has answered, with so many calls."""
        planned = [planned_call(n, worker.step, safe=safe) for n in range(1, calls + 1)]
        message = answer("let me see", worker.step, *planned)
        await work.commit_step(self.db, worker.claim, [message], planned, [], None)
        worker.open, worker.known, worker.journaled = planned, {}, set()
        worker.step += 1

    async def mark_sent(self, worker: Worker) -> None:
        policy = await one(self.db, "SELECT version FROM policy_state")
        positions = [planned.position for planned in worker.unanswered]
        step = worker.step - 1
        await work.mark_sent(self.db, worker.claim, step, positions, policy["version"])

    async def one_result(self, worker: Worker) -> None:
        planned = worker.unanswered[0]
        result = ToolResult("3")
        await work.record_result(self.db, worker.claim, _outcome(planned, result))
        worker.known[planned.position] = result
        worker.journaled.add(planned.position)

    async def results(self, worker: Worker, rest: ToolResult | None = None) -> None:
        """All results of the step; `rest` for the calls that have none yet."""
        ordered = sorted(worker.open, key=lambda planned: planned.position)
        told = [(p, worker.known.get(p.position, rest or ToolResult("3"))) for p in ordered]
        messages = [
            NewMessage("tool", [result_part(planned, result)], planned.step, planned.position)
            for planned, result in told
        ]
        outcomes = [_outcome(p, r) for p, r in told if p.position not in worker.journaled]
        await work.commit_results(self.db, worker.claim, messages, outcomes, [])
        worker.open, worker.known, worker.journaled = [], {}, set()

    async def close_calls(self, worker: Worker) -> None:
        """As a worker does before it ends a turn in the middle of a step."""
        await self.results(worker, INTERRUPTED)

    async def finish(self, worker: Worker, status: str) -> None:
        error = turn_error("generic", "no") if status == "failed" else None
        messages = [] if status == "failed" else [answer("that is it", worker.step)]
        await work.finish_turn(self.db, worker.claim, messages, status, error, [], None)

    async def park(self, worker: Worker, kind: ItemKind) -> None:
        """Every call that has no result waits for somebody."""
        waiting = [(planned, NewItem(kind, {"why": "asked"}, 60)) for planned in worker.unanswered]
        step = worker.step - 1
        await items.park_turn(self.db, worker.claim, step, [], waiting, [])

    async def hand_back(self, worker: Worker) -> None:
        await work.hand_back(self.db, worker.claim)

    async def stale_write(self, worker: Worker, what: str) -> None:
        """A worker that has lost its turn, and goes on as if nothing had happened."""
        planned = planned_call(1, worker.step)
        writes: dict[str, Callable[[], Awaitable[object]]] = {
            "step": lambda: self.step(worker, 1, safe=True),
            "sent": lambda: work.mark_sent(self.db, worker.claim, worker.step, [1], 1),
            "result": lambda: work.record_result(
                self.db, worker.claim, _outcome(planned, ToolResult("late"))
            ),
            "results": lambda: work.commit_results(
                self.db, worker.claim, [answer("late", worker.step)], [], []
            ),
            "park": lambda: self.park(worker, "approval"),
            "finish": lambda: self.finish(worker, "completed"),
            "back": lambda: self.hand_back(worker),
        }
        rows = await everything(self.db)
        with pytest.raises(LeaseLost):
            await writes[what]()
        assert await everything(self.db) == rows, "a stale worker has written"

    # --- sweepers

    async def lose(self, worker: Worker) -> None:
        await run_out(self.seed, worker.claim)
        await sweeping.expire_turn(self.db, worker.claim.turn_id, worker.claim.chat_id)

    def stranded(self) -> list[UUID]:
        """Chats with a queue: whether it is stuck is for the sweeper to see."""
        return [chat_id for chat_id, chat in self.picture.items() if chat.of("queued")]

    async def promote_stranded(self, chat_id: UUID) -> None:
        await sweeping.promote_stranded(self.db, chat_id)

    async def expire_item(self, item: dict[str, Any]) -> None:
        await items.expire_item(self.db, item["id"], item["chat_id"])

    def _words(self) -> str:
        self._count += 1
        return f"message {self._count}"


def _outcome(planned: PlannedCall, result: ToolResult) -> CallOutcome:
    state: CallState = result.outcome
    return CallOutcome(planned.step, planned.position, state, dict(result_part(planned, result)))
