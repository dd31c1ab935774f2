"""Questions of servers from before 2026-07-28, which ask while the call is open."""

import asyncio
from typing import Any

import orjson
import pytest

from chatd.core.asking import ElicitAnswer, Elicitation, Progress
from chatd.core.servers import SHARED, ApiKeyAuth
from chatd.mcp import pool as pool_module
from chatd.mcp.backlog import MAX_BACKLOG
from chatd.mcp.conversation import MAX_ASKED, MAX_OPEN
from chatd.mcp.pool import SessionPool
from tests.mcp.peer import Peer, Say, call, event, result, running, server_at
from tests.mcp.questions import FORM, Person, Way, asking, demo, named, texts
from tests.outbound.raw_server import Exchange

WAYS: tuple[Way, ...] = ("legacy", "sse")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (named("Ann"), "Hello, Ann!"),
        (ElicitAnswer("decline"), "The user chose: decline"),
        (ElicitAnswer("cancel"), "The user chose: cancel"),
    ],
)
async def test_a_server_asks_and_goes_on_with_the_answer(
    pool: SessionPool, way: Way, answer: ElicitAnswer, text: str
) -> None:
    person = Person(answer)
    async with demo(way) as server:
        told = await call(pool, server, SHARED, "ask", {"question": "Who?"}, elicit=person)
        await pool.aclose()
    assert told.text == text
    (asked,) = person.asked
    assert (asked.mode, asked.message) == ("form", "Who?")
    assert asked.schema is not None
    assert asked.schema["properties"]["name"]["type"] == "string"


@pytest.mark.parametrize("way", WAYS)
async def test_without_anybody_to_ask_a_question_is_cancelled(pool: SessionPool, way: Way) -> None:
    async with demo(way) as server:
        told = await call(pool, server, SHARED, "ask", {})
        await pool.aclose()
    assert told.text == "The user chose: cancel"


async def test_a_page_to_visit_is_shown_with_its_whole_address(pool: SessionPool) -> None:
    person = Person(ElicitAnswer("accept"))
    url = "https://example.com/pay?order=1#top"
    async with demo("legacy") as server:
        told = await call(pool, server, SHARED, "visit", {"url": url}, elicit=person)
        await pool.aclose()
    assert told.text == "The user chose: accept"
    (asked,) = person.asked
    assert (asked.mode, asked.url, asked.schema) == ("url", url, None)
    assert asked.elicitation_id


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "file:///etc/passwd",
        "https://",
        "https://good.example@bad.example/",
        "https://[::1/",
        "https://bad.example/\u202egnp.exe",
        "https://bad.example\\.good.example/",
        "https://good.example\t.bad.example/",
        "https://g\u043e\u043ed.example/",
        "https://good.example/ (safe)",
        "https://long.example/" + "x" * 5000,
        "",
    ],
)
async def test_an_address_that_is_not_plain_is_declined_and_never_shown(
    pool: SessionPool, url: str
) -> None:
    person = Person(ElicitAnswer("accept"))
    async with demo("legacy") as server:
        told = await call(pool, server, SHARED, "visit", {"url": url}, elicit=person)
        await pool.aclose()
    assert told.text == "The user chose: decline"
    assert person.asked == []


@pytest.mark.parametrize(
    ("params", "told"),
    [
        (FORM | {"requestedSchema": {"type": "array"}}, "-32602"),
        ({"message": "Who?"}, "-32602"),
        (FORM | {"mode": "telepathy"}, "-32602"),
        (FORM | {"message": "x" * 70_000}, "{'action': 'decline'}"),
    ],
)
async def test_a_question_that_cannot_be_shown_reaches_nobody_and_the_call_goes_on(
    pool: SessionPool, params: dict[str, Any], told: str
) -> None:
    person = Person(named("Ann"))
    async with running(Peer(modern=False)) as peer:
        peer.says["tools/call"] = asking(peer, params)
        answer = await call(pool, server_at(peer.url), SHARED, "add", {}, elicit=person)
    assert (answer.text, person.asked) == (told, [])


async def test_what_else_a_server_may_want_of_a_client_is_refused(pool: SessionPool) -> None:
    sampling: dict[str, Any] = {"messages": [], "maxTokens": 1}
    async with running(Peer(modern=False)) as peer:
        peer.says["tools/call"] = asking(peer, sampling, "sampling/createMessage")
        answer = await call(pool, server_at(peer.url), SHARED, "add", {})
    assert answer.text == "-32600"


async def test_an_answer_that_no_form_can_have_becomes_a_cancel(pool: SessionPool) -> None:
    person = Person(ElicitAnswer("accept", {"name": {"first": "Ann"}}))
    async with running(Peer(modern=False)) as peer:
        peer.says["tools/call"] = asking(peer, FORM)
        answer = await call(pool, server_at(peer.url), SHARED, "add", {}, elicit=person)
    assert answer.text == "{'action': 'cancel'}"


async def test_a_person_may_take_longer_than_the_server(
    pool: SessionPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "READ_SLACK_S", 0.01)
    person = Person(named("Ann"), after_s=1.5)
    async with running(Peer(modern=False)) as peer:
        peer.says["tools/call"] = asking(peer, FORM)
        server = server_at(peer.url)
        await pool.connect(server, SHARED)
        answer = await call(
            pool, server, SHARED, "add", {}, timeout_s=0.7, absolute_s=0.8, elicit=person
        )
    assert (answer.outcome, answer.text) == (
        "done",
        "{'action': 'accept', 'content': {'name': 'Ann'}}",
    )


async def test_after_the_answer_the_servers_time_runs_again(pool: SessionPool) -> None:
    async with running(Peer(modern=False)) as peer:

        async def ask_and_hang(exchange: Exchange, message: dict[str, Any]) -> None:
            await exchange.begin()
            question = {"id": "q", "method": "elicitation/create", "params": FORM}
            await exchange.chunk(event(question))
            await exchange.until_closed()

        peer.says["tools/call"] = ask_and_hang
        server, person = server_at(peer.url), Person(named("Ann"))
        await pool.connect(server, SHARED)
        answer = await call(pool, server, SHARED, "add", {}, timeout_s=0.5, elicit=person)
        assert (await peer.reply("q"))["result"]["content"] == {"name": "Ann"}
    assert answer.outcome == "unknown"
    assert "no answer came within" in answer.text


async def test_a_call_that_is_cancelled_takes_its_question_back(pool: SessionPool) -> None:
    person = Person()
    async with running(Peer(modern=False)) as peer:
        peer.says["tools/call"] = asking(peer, FORM)
        calling = asyncio.create_task(
            call(pool, server_at(peer.url), SHARED, "add", {}, elicit=person)
        )
        await person.reading.wait()
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        await person.left.wait()
        await peer.until("notifications/cancelled")
        sent = peer.last("tools/call").message["id"]
        told = await peer.reply(f"question-{sent}")
    assert told["result"] == {"action": "cancel"}
    assert peer.last("notifications/cancelled").params["requestId"] == sent


async def test_a_server_that_dies_takes_its_question_with_it(pool: SessionPool) -> None:
    person = Person()

    async def ask_and_die(exchange: Exchange, message: dict[str, Any]) -> None:
        await exchange.begin()
        await exchange.chunk(event({"id": "q", "method": "elicitation/create", "params": FORM}))
        await person.reading.wait()
        exchange.writer.close()

    async with running(Peer(modern=False)) as peer:
        peer.says["tools/call"] = ask_and_die
        answer = await call(pool, server_at(peer.url), SHARED, "add", {}, elicit=person)
        await person.left.wait()
    assert (answer.outcome, len(person.asked)) == ("unknown", 1)


async def test_a_server_that_takes_its_question_back_frees_the_person(pool: SessionPool) -> None:
    person = Person()

    async def ask_and_answer(exchange: Exchange, message: dict[str, Any]) -> None:
        await exchange.begin()
        await exchange.chunk(event({"id": "q", "method": "elicitation/create", "params": FORM}))
        await person.reading.wait()
        cancelled = {"method": "notifications/cancelled", "params": {"requestId": "q"}}
        await exchange.chunk(event(cancelled))
        await person.left.wait()
        await exchange.chunk(event({"id": message["id"], "result": texts("never mind")}))
        await exchange.end()

    async with running(Peer(modern=False)) as peer:
        peer.says["tools/call"] = ask_and_answer
        answer = await call(pool, server_at(peer.url), SHARED, "add", {}, elicit=person)
    assert answer.text == "never mind"


async def test_what_the_asking_raises_ends_the_call_and_the_server_hears_of_it(
    pool: SessionPool,
) -> None:
    async def lost(_: Elicitation) -> ElicitAnswer:
        raise LookupError("the lease is lost")

    async with running(Peer(modern=False)) as peer:
        peer.says["tools/call"] = asking(peer, FORM)
        with pytest.raises(LookupError, match="the lease is lost"):
            await call(pool, server_at(peer.url), SHARED, "add", {}, elicit=lost)
        await peer.until("notifications/cancelled")
        peer.says["tools/call"] = lambda exchange, message: result(exchange, message, texts("ok"))
        after = await call(pool, server_at(peer.url), SHARED, "add", {})
    assert after.outcome == "done"


async def test_two_calls_over_one_session_each_ask_their_own_person(pool: SessionPool) -> None:
    together = asyncio.Barrier(2)

    class Together(Person):
        async def __call__(self, question: Elicitation) -> ElicitAnswer:
            await together.wait()
            return await super().__call__(question)

    people = {name: Together(named(name)) for name in ("Ann", "Bob")}
    async with demo("legacy") as server:
        answers = await asyncio.gather(
            *[
                call(pool, server, SHARED, "ask", {"question": f"{name}?"}, elicit=person)
                for name, person in people.items()
            ]
        )
        await pool.aclose()
    texts_ = [answer.text for answer in answers]
    assert texts_ == ["Hello, Ann!", "Hello, Bob!"]
    for name, person in people.items():
        assert [asked.message for asked in person.asked] == [f"{name}?"]


async def test_over_sse_nobody_is_asked_while_two_calls_run(pool: SessionPool) -> None:
    """Nothing on the one channel tells whose question it is."""
    person = Person(named("Ann"))
    async with demo("sse") as server:
        slow = asyncio.Event()

        def started(_: Progress) -> None:
            slow.set()

        other = asyncio.create_task(
            call(
                pool,
                server,
                SHARED,
                "slow",
                {"seconds": 30, "steps": 1000},
                progress=started,
            )
        )
        await slow.wait()
        told = await call(pool, server, SHARED, "ask", {}, elicit=person)
        other.cancel()
        await asyncio.wait({other})
        await pool.aclose()
    assert (told.text, person.asked) == ("The user chose: cancel", [])


async def test_over_sse_a_call_that_was_given_up_never_asks_the_next_ones_person(
    pool: SessionPool,
) -> None:
    nobody, person = Person(), Person(named("Bob"))
    async with demo("sse") as server:
        first = asyncio.create_task(call(pool, server, SHARED, "ask", {}, elicit=nobody))
        await nobody.reading.wait()
        first.cancel()
        await asyncio.wait({first})
        await nobody.left.wait()
        told = await call(pool, server, SHARED, "ask", {"question": "mine"}, elicit=person)
        await pool.aclose()
    assert told.text == "Hello, Bob!"
    assert [asked.message for asked in person.asked] == ["mine"]


async def test_a_question_outside_every_call_is_cancelled(pool: SessionPool) -> None:
    person = Person(named("Ann"))
    called = asyncio.Event()

    async def outside(exchange: Exchange, message: dict[str, Any]) -> None:
        await exchange.begin()
        await called.wait()
        await exchange.chunk(event({"id": "q", "method": "elicitation/create", "params": FORM}))
        await exchange.until_closed()

    async with running(Peer(modern=False)) as peer:

        async def wait(exchange: Exchange, message: dict[str, Any]) -> None:
            called.set()
            told = await peer.reply("q")
            await result(exchange, message, texts(str(told["result"])))

        peer.says |= {"GET": outside, "tools/call": wait}
        answer = await call(pool, server_at(peer.url), SHARED, "add", {}, elicit=person)
        await pool.aclose()
    assert (answer.text, person.asked) == ("{'action': 'cancel'}", [])


async def test_a_flood_of_questions_opens_only_a_few(pool: SessionPool) -> None:
    person = Person()
    async with running(Peer(modern=False)) as peer:

        async def flood(exchange: Exchange, message: dict[str, Any]) -> None:
            await exchange.begin()
            for number in range(MAX_OPEN + 1):
                question = {"id": f"q{number}", "method": "elicitation/create", "params": FORM}
                await exchange.chunk(event(question))
            told = await peer.reply(f"q{MAX_OPEN}")
            await exchange.chunk(event({"id": message["id"], "result": texts(str(told))}))
            await exchange.end()

        peer.says["tools/call"] = flood
        answer = await call(pool, server_at(peer.url), SHARED, "add", {}, elicit=person)
    assert "'action': 'cancel'" in answer.text
    assert len(person.asked) == MAX_OPEN


async def test_one_call_asks_only_so_often(pool: SessionPool) -> None:
    person = Person(named("Ann"))
    async with running(Peer(modern=False)) as peer:

        async def insist(exchange: Exchange, message: dict[str, Any]) -> None:
            await exchange.begin()
            told: dict[str, Any] = {}
            for number in range(MAX_ASKED + 1):
                question = {"id": f"q{number}", "method": "elicitation/create", "params": FORM}
                await exchange.chunk(event(question))
                told = await peer.reply(f"q{number}")
            await exchange.chunk(event({"id": message["id"], "result": texts(str(told))}))
            await exchange.end()

        peer.says["tools/call"] = insist
        answer = await call(pool, server_at(peer.url), SHARED, "add", {}, elicit=person)
    assert "'action': 'cancel'" in answer.text
    assert len(person.asked) == MAX_ASKED


@pytest.mark.parametrize("modern", [True, False])
async def test_a_flood_of_requests_does_not_pile_up(pool: SessionPool, modern: bool) -> None:
    """A server that asks much and takes answers slowly."""
    taken = asyncio.Event()
    most = 0
    async with running(Peer(modern=modern)) as peer:

        async def slow(exchange: Exchange, message: dict[str, Any]) -> None:
            await taken.wait()
            await exchange.answer(status=202)

        async def flood(exchange: Exchange, message: dict[str, Any]) -> None:
            nonlocal most
            await exchange.begin()
            for start in range(0, 2000, 100):
                asked = [{"id": f"q{start + number}", "method": "ping"} for number in range(100)]
                await exchange.chunk(b"".join(event(ping) for ping in asked))
                most = max(most, len(asyncio.all_tasks()))
            await exchange.chunk(event({"id": message["id"], "result": texts("said")}))
            await exchange.end()

        peer.says |= {"tools/call": flood, "POST": slow}
        answer = await call(pool, server_at(peer.url), SHARED, "add", {})
        most = max(most, len(asyncio.all_tasks()))
        taken.set()
    assert answer.text == "said"
    assert most < MAX_BACKLOG + 100


async def test_a_question_holds_no_secret_and_nothing_invisible(pool: SessionPool) -> None:
    auth = ApiKeyAuth(header="X-Key", value="canary-secret-1")  # pyright: ignore[reportArgumentType]
    person = Person(named("Ann"))
    field = {"type": "string", "title": "not canary-secret-1\x00"}
    params = {
        "message": "key canary-secret-1 \u202e!",
        "requestedSchema": {"type": "object", "properties": {"name": field}},
    }
    async with running(Peer(modern=False)) as peer:
        peer.says["tools/call"] = asking(peer, params)
        server = server_at(peer.url, auth=auth)
        await call(pool, server, SHARED, "add", {}, elicit=person)
    (asked,) = person.asked
    assert asked.message == "key [REDACTED] !"
    assert asked.schema is not None
    assert asked.schema["properties"]["name"]["title"] == "not [REDACTED]\ufffd"


@pytest.mark.parametrize("modern", [True, False])
async def test_the_server_is_told_that_people_can_be_asked(pool: SessionPool, modern: bool) -> None:
    async with running(Peer(modern=modern)) as peer:
        await call(pool, server_at(peer.url), SHARED, "add", {})
    declared = (
        peer.last("tools/call").params["_meta"]["io.modelcontextprotocol/clientCapabilities"]
        if modern
        else peer.last("initialize").params["capabilities"]
    )
    assert declared == {"elicitation": {"form": {}, "url": {}}}


def _visit_first(url: str, times: int) -> Say:
    """Refuses the call so often, until the user has been to the page."""
    left = [None] * times

    async def say(exchange: Exchange, message: dict[str, Any]) -> None:
        if not left:
            await result(exchange, message, texts("welcome"))
            return
        left.pop()
        page = {"mode": "url", "message": "Sign in", "url": url, "elicitationId": "e-1"}
        refusal = {"code": -32042, "message": "Sign in first", "data": {"elicitations": [page]}}
        body = orjson.dumps({"jsonrpc": "2.0", "id": message["id"], "error": refusal})
        await exchange.answer(body, headers="content-type: application/json\r\n")

    return say


@pytest.mark.parametrize(
    ("answer", "times", "outcome", "text", "calls"),
    [
        (ElicitAnswer("accept"), 1, "done", "welcome", 2),
        (ElicitAnswer("accept"), 99, "failed", "Sign in first", 4),
        (ElicitAnswer("decline"), 1, "failed", "the user must visit a page first", 1),
        (None, 1, "failed", "Sign in first", 1),
    ],
)
async def test_a_call_that_is_refused_until_a_page_was_visited_is_made_again_after_it(
    pool: SessionPool,
    answer: ElicitAnswer | None,
    times: int,
    outcome: str,
    text: str,
    calls: int,
) -> None:
    person = Person(answer)
    async with running(Peer(modern=False)) as peer:
        peer.says["tools/call"] = _visit_first("https://example.com/in", times)
        elicit = None if answer is None else person
        told = await call(
            pool, server_at(peer.url), SHARED, "add", {}, elicit=elicit, leave_within_s=30
        )
    assert (told.outcome, peer.count("tools/call")) == (outcome, calls)
    assert text in told.text
    assert all(asked.url == "https://example.com/in" for asked in person.asked)


async def test_a_page_that_is_no_plain_address_is_not_visited_first_either(
    pool: SessionPool,
) -> None:
    person = Person(ElicitAnswer("accept"))
    async with running(Peer(modern=False)) as peer:
        peer.says["tools/call"] = _visit_first("javascript:alert(1)", 1)
        told = await call(pool, server_at(peer.url), SHARED, "add", {}, elicit=person)
    assert (told.outcome, person.asked) == ("failed", [])
