"""Titles made beside the turns: by itself for new chats, and when somebody asks."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from redis.asyncio import Redis

from chatd import title_queue
from chatd.core.chats import ChatPatch
from chatd.core.errors import Conflict, NotFound, TimedOut, Unavailable, UsageLimit
from chatd.dev.served import Served
from chatd.queue import WAKE_LIST, Wakes
from chatd.retitling import Retitling
from chatd.store.chats import get_chat
from chatd.store.config import write_setting
from chatd.store.editing import patch_chat
from chatd.store.spending import SpendLimits
from chatd.store.titles import release_lease, save_asked, take_lease
from chatd.title_queue import REQUESTS, TitleQueue, TitleRequest
from chatd.titles import Titles
from chatd.turn.deps import TurnDeps
from tests.llm.provider import failing
from tests.outbound.raw_server import Answer, Exchange, serving
from tests.seed import KEYS, NOWHERE, Seed, answer, make_model, make_seed, make_user
from tests.spent import kinds, ledger
from tests.store.working import finish
from tests.stream.listening import listening
from tests.turning import turn_deps
from tests.waiting import locked, one, soon, until


class Desk:
    """The service of one worker, with chats to name."""

    def __init__(self, seed: Seed, deps: TurnDeps, redis: Redis) -> None:
        self.seed = seed
        self.deps = deps
        self.redis = redis
        self.titles = Titles(seed.db, KEYS, deps.models, deps.publisher, deps.wakes)

    async def begun(self, words: str = "what time is it in Oslo") -> UUID:
        """A new chat whose first turn has just begun."""
        claim = await self.seed.claimed(words)
        self.titles.begin(await self.deps.loader.load(claim))
        return claim.chat_id

    async def over(self) -> None:
        """Everything that was begun has come to its end."""
        await soon(lambda: not self.titles.busy)

    async def chat(self, chat_id: UUID) -> Any:
        return await get_chat(self.seed.db, self.seed.actor.user_id, chat_id)

    async def source(self, chat_id: UUID) -> str:
        row = await one(self.seed.db, "SELECT title_source FROM chats WHERE id = $1", chat_id)
        return row["title_source"]

    def retitling(self, wait_s: float = 20) -> Retitling:
        queue = TitleQueue(self.redis, wait_s=wait_s)
        return Retitling(self.seed.db, self.deps.wakes, queue, SpendLimits(self.seed.db))

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[None]:
        task = asyncio.create_task(self.titles.serve(TitleQueue(self.redis)))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def desk(db: Any, redis: Redis, scripted_model: Served) -> AsyncGenerator[Desk]:
    seed = await make_seed(db, scripted_model.url)
    async with turn_deps(db, redis) as deps:
        made = Desk(seed, deps, redis)
        yield made
        await made.titles.close()


async def use(desk: Desk, url: str) -> None:
    """From now on the model is there."""
    await desk.seed.db.fetch("UPDATE model_providers SET base_url = $1", url)


# --- automatic


@pytest.mark.parametrize("status", [401, 429, 500])
async def test_a_model_that_fails_leaves_the_first_words(desk: Desk, status: int) -> None:
    async with serving(failing(status, {"error": {"message": "no"}})) as provider:
        await use(desk, provider.url)
        chat_id = await desk.begun()
        await desk.over()
        assert len(provider.exchanges) == 1
    assert (await desk.chat(chat_id))["title"] == "what time is it in Oslo"
    assert await desk.source(chat_id) == "fallback"
    assert await kinds(desk.seed.db, chat_id) == []


async def test_a_model_that_never_answers_is_given_up_with_its_worker(desk: Desk) -> None:
    async def hang(exchange: Exchange) -> None:
        await exchange.until_closed()

    async with serving(hang) as provider:
        await use(desk, provider.url)
        chat_id = await desk.begun()
        await soon(lambda: provider.exchanges)
        await desk.titles.close()
    assert await desk.source(chat_id) == "fallback"


async def test_a_name_that_the_user_gives_meanwhile_wins(desk: Desk) -> None:
    answered, renamed = asyncio.Event(), asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        answered.set()
        await renamed.wait()
        await naming("Too late")(exchange)

    async with serving(slow) as provider:
        await use(desk, provider.url)
        chat_id = await desk.begun()
        await answered.wait()
        await patch_chat(desk.seed.db, desk.seed.actor, chat_id, ChatPatch(title="Mine"))
        renamed.set()
        await desk.over()
    assert (await desk.chat(chat_id))["title"] == "Mine"
    assert await desk.source(chat_id) == "user"
    assert await kinds(desk.seed.db, chat_id) == ["title"]  # it was paid for


async def test_a_new_chat_is_named_and_nothing_else_changes(desk: Desk) -> None:
    before: Any = None
    async with listening(
        desk.redis, (claim := await desk.seed.claimed("/say hi")).chat_id
    ) as heard:
        before = await desk.chat(claim.chat_id)
        desk.titles.begin(await desk.deps.loader.load(claim))
        entry = await heard.entry()
    after = await desk.chat(claim.chat_id)
    assert after == {**before, "title": "Hi"}
    assert await desk.source(claim.chat_id) == "generated"
    row = await one(desk.seed.db, "SELECT version FROM chats WHERE id = $1", claim.chat_id)
    assert entry.version == row["version"] == claim.version + 1
    rows = await desk.seed.db.fetch("SELECT 1 FROM chat_messages")
    assert len(rows) == 1
    (line,) = await ledger(desk.seed.db, claim.chat_id)
    assert (line["kind"], line["turn_id"], line["estimated"]) == ("title", None, False)


async def test_the_turn_goes_on_under_its_fence_while_its_chat_is_named(desk: Desk) -> None:
    claim = await desk.seed.claimed()
    desk.titles.begin(await desk.deps.loader.load(claim))
    await desk.over()
    ended = await finish(desk.seed, claim, answer("hello"))
    assert ended.status == "completed"


async def test_a_claim_that_passed_over_the_locked_chat_is_woken(
    desk: Desk, database_url: str
) -> None:
    claim = await desk.seed.claimed()
    async with locked(database_url, claim.chat_id) as holder:
        desk.titles.begin(await desk.deps.loader.load(claim))
        await holder.waiting()
    await desk.over()
    wakes = desk.deps.wakes
    wakes.start()
    await wakes.close()
    assert await cast(Any, desk.redis).llen(WAKE_LIST) >= 1


async def test_only_the_first_message_of_a_chat_names_it(desk: Desk) -> None:
    claim = await desk.seed.claimed()
    loaded = await desk.deps.loader.load(claim)
    desk.titles.begin(replace(loaded, parent_chat_id=claim.chat_id))
    desk.titles.begin(replace(loaded, title_source="user"))
    desk.titles.begin(replace(loaded, kind="compact"))
    desk.titles.begin(replace(loaded, history=[*loaded.history, *loaded.history]))
    await finish(desk.seed, claim, answer("hello"))
    await desk.seed.send(claim.chat_id, "again")
    second = await desk.deps.loader.load(await desk.seed.claim())
    desk.titles.begin(second)
    # As after a clear: the model reads one message, though the chat has two.
    desk.titles.begin(replace(second, history=second.history[-1:]))
    await desk.over()
    assert await desk.source(claim.chat_id) == "fallback"
    assert await kinds(desk.seed.db, claim.chat_id) == []


async def test_the_override_is_the_only_model_asked(desk: Desk) -> None:
    override = await make_model(desk.seed.db, NOWHERE)
    async with desk.seed.db.transaction() as session:
        overrides = {"title": str(override), "explore": None, "general": None}
        await write_setting(session, "model_overrides", overrides, desk.seed.actor.user_id)
    chat_id = await desk.begun()
    await desk.over()
    assert await desk.source(chat_id) == "fallback"


async def test_a_cheap_model_is_asked_first_and_the_chats_own_next(desk: Desk) -> None:
    async with serving(failing(500, {})) as cheap:
        cheap_id = await make_model(desk.seed.db, cheap.url)
        await desk.seed.db.fetch(
            "UPDATE model_configs SET model = 'gpt-4o-mini' WHERE id = $1", cheap_id
        )
        chat_id = await desk.begun("what time is it")
        await desk.over()
        assert [json.loads(e.body)["model"] for e in cheap.exchanges] == ["gpt-4o-mini"]
    assert (await desk.chat(chat_id))["title"] == "What time is it"


# --- asked for


async def test_without_a_worker_an_asker_is_told_and_may_ask_again(desk: Desk) -> None:
    chat_id = await desk.seed.chat_id()
    retitling = desk.retitling(wait_s=0.05)
    for _ in range(2):
        with pytest.raises(TimedOut):
            await retitling.propose(desk.seed.actor, chat_id, save=True)


async def test_a_request_that_was_given_up_is_not_made(desk: Desk) -> None:
    chat_id = await desk.seed.chat_id()
    with pytest.raises(TimedOut):
        await desk.retitling(wait_s=0.05).propose(desk.seed.actor, chat_id, save=True)
    async with desk.serving():
        await until(lambda: _empty(desk.redis))
        await desk.over()
    assert await kinds(desk.seed.db, chat_id) == []


async def test_one_title_is_made_at_a_time(desk: Desk) -> None:
    db, actor = desk.seed.db, desk.seed.actor
    chat_id = await desk.seed.chat_id()
    until_then = await take_lease(db, actor.user_id, chat_id)
    with pytest.raises(Conflict):
        await desk.retitling().propose(actor, chat_id, save=False)
    await release_lease(db, chat_id, until_then)
    again = await take_lease(db, actor.user_id, chat_id)
    await release_lease(db, chat_id, until_then)  # another's lease: stays
    with pytest.raises(Conflict):
        await take_lease(db, actor.user_id, chat_id)
    await db.fetch("UPDATE chats SET retitling_until = clock_timestamp() - interval '1 s'")
    await take_lease(db, actor.user_id, chat_id)
    assert await save_asked(db, chat_id, again, "Late") is None


async def test_somebody_elses_chat_is_not_found(desk: Desk) -> None:
    chat_id = await desk.seed.chat_id()
    other = await make_user(desk.seed.db, "max")
    with pytest.raises(NotFound):
        await desk.retitling().propose(other, chat_id, save=False)


async def test_a_model_that_fails_is_told_to_whoever_asked(desk: Desk) -> None:
    chat_id = await desk.seed.chat_id()
    await use(desk, NOWHERE)
    async with desk.serving():
        with pytest.raises(Unavailable, match="No title could be generated"):
            await desk.retitling().propose(desk.seed.actor, chat_id, save=True)


async def test_nothing_is_asked_of_who_has_spent_their_limit(desk: Desk) -> None:
    chat_id = await desk.seed.chat_id()
    async with desk.seed.db.transaction() as session:
        limits = {"enabled": True, "default_limit_micros": 0, "period": "day"}
        await write_setting(session, "usage_limits", limits, desk.seed.actor.user_id)
    with pytest.raises(UsageLimit):
        await desk.retitling().propose(desk.seed.actor, chat_id, save=False)
    assert await _empty(desk.redis)


async def test_a_proposal_changes_nothing(desk: Desk) -> None:
    chat_id = await desk.seed.chat_id("what time is it")
    before = await desk.chat(chat_id)
    async with desk.serving():
        title = await desk.retitling().propose(desk.seed.actor, chat_id, save=False)
    assert title == "What time is it"
    assert await desk.chat(chat_id) == before
    assert await kinds(desk.seed.db, chat_id) == ["title"]


@pytest.mark.parametrize(("given", "source"), [(None, "generated"), ("Mine", "user")])
async def test_a_title_that_was_asked_for_is_kept_whoever_named_the_chat(
    desk: Desk, given: str | None, source: str
) -> None:
    chat_id = await desk.seed.chat_id("what time is it")
    if given is not None:
        await patch_chat(desk.seed.db, desk.seed.actor, chat_id, ChatPatch(title=given))
    async with desk.serving():
        await desk.retitling().propose(desk.seed.actor, chat_id, save=True)
        await desk.retitling().propose(desk.seed.actor, chat_id, save=True)
    assert (await desk.chat(chat_id))["title"] == "What time is it"
    assert await desk.source(chat_id) == source


async def test_a_rename_while_a_title_is_made_stands(desk: Desk) -> None:
    chat_id = await desk.seed.chat_id()
    renamed = asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        await patch_chat(desk.seed.db, desk.seed.actor, chat_id, ChatPatch(title="Mine"))
        renamed.set()
        await naming("Too late")(exchange)

    async with serving(slow) as provider, desk.serving():
        await use(desk, provider.url)
        await desk.retitling().propose(desk.seed.actor, chat_id, save=True)
    assert (await desk.chat(chat_id))["title"] == "Mine"


async def test_redis_away_is_told_at_once_and_leaves_no_lease(desk: Desk) -> None:
    chat_id = await desk.seed.chat_id()
    away = TitleQueue(Redis.from_url("redis://127.0.0.1:9/0"))
    retitling = Retitling(desk.seed.db, Wakes(desk.redis), away, SpendLimits(desk.seed.db))
    for _ in range(2):
        with pytest.raises(Unavailable):
            await retitling.propose(desk.seed.actor, chat_id, save=True)


def naming(title: str) -> Answer:
    body = {
        "choices": [
            {"index": 0, "message": {"content": json.dumps({"title": title})},
             "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2},
    }  # fmt: skip

    async def answered(exchange: Exchange) -> None:
        content = json.dumps(body).encode()
        await exchange.answer(content, headers="content-type: application/json\r\n")

    return answered


async def _empty(redis: Redis) -> bool:
    return await cast(Any, redis).llen(REQUESTS) == 0


async def test_one_process_waits_for_so_many_titles_at_once(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(title_queue, "MAX_ASKING", 1)
    queue = TitleQueue(desk.redis, wait_s=0.05)
    request = TitleRequest(uuid4(), datetime.now(UTC), save=False)
    for _ in range(2):
        both = await asyncio.gather(queue.ask(request), queue.ask(request), return_exceptions=True)
        assert [type(failed) for failed in both] == [TimedOut, Unavailable]
