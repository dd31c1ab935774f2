"""Calls that end with a question and go on when they are made again (2026-07-28)."""

from typing import Any

import pytest

from chatd.core.asking import ElicitAnswer, Elicitation, InputRequired
from chatd.core.servers import SHARED, ApiKeyAuth, McpServer
from chatd.core.tools import JsonObject, ToolResult
from chatd.mcp.pool import SessionPool
from chatd.mcp.questions import Unaskable, question
from tests.mcp.conftest import MakePool
from tests.mcp.peer import Peer, Say, call, error, result, running, server_at
from tests.mcp.questions import FORM, Person, demo, named, texts
from tests.outbound.raw_server import Exchange

ASK: JsonObject = {"method": "elicitation/create", "params": FORM}


async def required(
    pool: SessionPool, server: McpServer, name: str, arguments: JsonObject, **options: Any
) -> InputRequired:
    answer = await pool.call_tool(server, SHARED, name, arguments, **options)
    assert isinstance(answer, InputRequired)
    return answer


def wanting(*rounds: JsonObject) -> Say:
    """Wants one thing after the other, then is done."""
    left = list(rounds)

    async def say(exchange: Exchange, message: dict[str, Any]) -> None:
        if left:
            await result(exchange, message, {"resultType": "input_required"} | left.pop(0))
        else:
            await result(exchange, message, texts("done"))

    return say


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (ElicitAnswer("accept", {"sure": True}), "done: fly"),
        (ElicitAnswer("accept", {"sure": False}), "not done: fly (accept)"),
        (ElicitAnswer("decline"), "not done: fly (decline)"),
        (ElicitAnswer("cancel"), "not done: fly (cancel)"),
    ],
)
async def test_a_call_ends_with_a_question_and_another_worker_goes_on_with_the_answer(
    make_pool: MakePool, answer: ElicitAnswer, text: str
) -> None:
    arguments = {"action": "fly"}
    async with demo("modern") as server:
        async with make_pool() as first:
            wanted = await required(first, server, "confirm", arguments)
        ((key, request),) = wanted.requests.items()
        asked = Elicitation.of(request)
        assert (asked.mode, asked.message) == ("form", "Really fly?")
        async with make_pool() as second:
            told = await call(
                second,
                server,
                SHARED,
                "confirm",
                arguments,
                responses={key: answer.response()},
                request_state=wanted.state,
            )
    assert (told.outcome, told.text) == ("done", text)


async def test_a_page_to_visit_is_wanted_the_same_way(pool: SessionPool) -> None:
    async with demo("modern") as server:
        wanted = await required(pool, server, "visit", {})
        ((key, request),) = wanted.requests.items()
        asked = Elicitation.of(request)
        assert (asked.mode, asked.url) == ("url", "https://example.com/consent")
        agreed = {key: ElicitAnswer("accept").response()}
        told = await call(pool, server, SHARED, "visit", {}, responses=agreed)
        await pool.aclose()
    assert told.text == "The user chose: accept"


async def test_nobody_is_asked_while_the_call_is_open(pool: SessionPool) -> None:
    person = Person(named("Ann"))
    async with demo("modern") as server:
        await required(pool, server, "ask", {}, elicit=person)
        await pool.aclose()
    assert person.asked == []


async def test_the_second_round_is_the_first_with_the_answers_and_the_state(
    pool: SessionPool,
) -> None:
    state = "opaque \u00e9 {not: json} \u202e"
    arguments = {"a": 1, "deep": {"list": [1.5, None]}}
    async with running(Peer()) as peer:
        peer.says["tools/call"] = wanting({"inputRequests": {"who": ASK}, "requestState": state})
        server = server_at(peer.url)
        options: dict[str, Any] = {"meta": {"chatd/tool_call_id": "call-1"}}
        wanted = await required(pool, server, "add", arguments, **options)
        response = named("Ann").response()
        told = await call(
            pool,
            server,
            SHARED,
            "add",
            arguments,
            responses={"who": response},
            request_state=wanted.state,
            **options,
        )
    assert told.text == "done"
    assert wanted.state == state
    first, second = [heard.message for heard in peer.heard if heard.method == "tools/call"]
    extra = {"inputResponses": {"who": response}, "requestState": state}
    first["params"]["_meta"].pop("progressToken")
    second["params"]["_meta"].pop("progressToken")
    assert second["params"] == first["params"] | extra
    assert second["id"] != first["id"]


async def test_a_server_may_want_more_than_one_round(pool: SessionPool) -> None:
    async with running(Peer()) as peer:
        peer.says["tools/call"] = wanting(
            {"inputRequests": {"first": ASK}}, {"inputRequests": {"second": ASK}}
        )
        server = server_at(peer.url)
        assert set((await required(pool, server, "add", {})).requests) == {"first"}
        again = await required(pool, server, "add", {}, responses={"first": {"action": "cancel"}})
    assert (set(again.requests), again.state) == ({"second"}, None)


async def test_a_server_that_wants_only_its_state_back_is_given_it_at_once(
    pool: SessionPool,
) -> None:
    async with running(Peer()) as peer:
        peer.says["tools/call"] = wanting(
            {"requestState": "1"}, {"requestState": "2", "inputRequests": {}}
        )
        told = await call(
            pool,
            server_at(peer.url),
            SHARED,
            "add",
            {},
            responses={"who": {"action": "cancel"}},
            request_state="0",
            leave_within_s=30,
        )
    assert told.text == "done"
    heard = [heard.params for heard in peer.heard if heard.method == "tools/call"]
    assert [params["requestState"] for params in heard] == ["0", "1", "2"]
    assert ["inputResponses" in params for params in heard] == [True, False, False]


async def test_a_server_that_wants_its_state_back_for_ever_is_left(pool: SessionPool) -> None:
    async with running(Peer()) as peer:
        peer.says["tools/call"] = wanting(*[{"requestState": "again"}] * 99)
        told = await call(pool, server_at(peer.url), SHARED, "add", {})
    assert (told.outcome, peer.count("tools/call")) == ("unknown", 10)


UNUSABLE: list[tuple[JsonObject, str]] = [
    ({}, "input without saying which"),
    ({"inputRequests": {}}, "input without saying which"),
    ({"inputRequests": ["who"]}, "input in a way that cannot be read"),
    ({"inputRequests": {"who": ASK}, "requestState": 7}, "input in a way that cannot be read"),
    ({"inputRequests": {"who": "you"}}, "not supported here"),
    ({"inputRequests": {"who": {"method": "elicitation/create"}}}, "without a message"),
    ({"inputRequests": {"who": ASK | {"params": {"message": "Who?"}}}}, "a form that cannot"),
    ({"inputRequests": {"who": ASK | {"params": FORM | {"mode": "x"}}}}, "of an unknown kind"),
    (
        {"inputRequests": {"model": {"method": "sampling/createMessage", "params": {}}}},
        "input by 'sampling/createMessage', which is not supported here",
    ),
    ({"inputRequests": {"a": ASK, "roots": {"method": "roots/list"}}}, "input by 'roots/list'"),
    (
        {
            "inputRequests": {
                "go": ASK | {"params": {"mode": "url", "message": "Go", "url": "ftp://x/"}}
            }
        },
        "not a plain http or https one",
    ),
    ({"inputRequests": {"who": ASK}, "requestState": "x" * 65_536}, "more input than can be kept"),
    (
        {"inputRequests": {"who": ASK | {"params": FORM | {"message": "x" * 65_536}}}},
        "more input than can be kept",
    ),
    ({"inputRequests": {str(n): ASK for n in range(17)}}, "more input than can be kept"),
    ({"inputRequests": {"who": ASK}, "requestState": "a\x00b"}, "cannot be kept"),
    ({"inputRequests": {"who\x00": ASK}}, "cannot be kept"),
]


@pytest.mark.parametrize(("raw", "text"), UNUSABLE)
async def test_input_that_nobody_can_give_fails_the_call_with_the_reason(
    pool: SessionPool, raw: JsonObject, text: str
) -> None:
    async with running(Peer()) as peer:
        peer.says["tools/call"] = wanting(raw)
        told = await pool.call_tool(server_at(peer.url), SHARED, "add", {})
    assert isinstance(told, ToolResult)
    assert (told.outcome, told.is_error, peer.count("tools/call")) == ("failed", True, 1)
    assert told.text.startswith("The tool asked for ")
    assert text in told.text


async def test_a_state_that_the_server_no_longer_takes_fails_the_call(pool: SessionPool) -> None:
    async def refuse(exchange: Exchange, message: dict[str, Any]) -> None:
        await error(exchange, message, -32602, "Invalid or expired requestState", status=400)

    async with running(Peer()) as peer:
        peer.says["tools/call"] = refuse
        told = await call(pool, server_at(peer.url), SHARED, "add", {}, request_state="old")
    assert (told.outcome, peer.count("tools/call")) == ("failed", 1)
    assert "expired requestState" in told.text


async def test_what_is_shown_holds_no_secret_and_the_state_is_left_alone(
    pool: SessionPool,
) -> None:
    auth = ApiKeyAuth(header="X-Key", value="canary-secret-1")  # pyright: ignore[reportArgumentType]
    field = {"type": "string", "default": "canary-secret-1"}
    params = {
        "message": "canary-secret-1\u202e?",
        "requestedSchema": {"type": "object", "properties": {"name": field}},
    }
    raw = {"inputRequests": {"who": {**ASK, "params": params}}, "requestState": "canary-secret-1"}
    async with running(Peer()) as peer:
        peer.says["tools/call"] = wanting(raw)
        wanted = await required(pool, server_at(peer.url, auth=auth), "add", {})
    asked = Elicitation.of(wanted.requests["who"])
    assert asked.message == "[REDACTED]?"
    assert "canary" not in str(asked.schema)
    assert wanted.state == "canary-secret-1"


def test_a_question_with_a_number_that_json_does_not_know_is_not_asked() -> None:
    for number in (float("inf"), 10**30):
        field = {"type": "number", "maximum": number}
        params = {**FORM, "requestedSchema": {"type": "object", "properties": {"age": field}}}
        with pytest.raises(Unaskable, match="numbers"):
            question(params, ())
