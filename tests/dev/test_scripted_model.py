"""The scripted model over real HTTP, asked by the openai client."""

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI

from chatd.dev.served import Served
from chatd.dev.stack import start_model

DEMO_TOOLS = ("demo__add", "demo__current_time")


def tool(name: str) -> dict[str, Any]:
    numbers = {"a": {"type": "integer"}, "b": {"anyOf": [{"type": "integer"}, {"type": "number"}]}}
    required = ["a", "b"] if name.endswith("add") else []
    parameters = {"type": "object", "properties": numbers, "required": required}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


@dataclass
class Reply:
    text: str | None
    calls: list[tuple[str, str]]
    call_ids: list[str]
    finish_reason: str | None
    pieces: int


class Asker:
    """One conversation's requests, streamed or not."""

    def __init__(self, client: AsyncOpenAI, *, stream: bool) -> None:
        self._client = client
        self._stream = stream

    async def __call__(self, *messages: Any, tools: tuple[str, ...] = (), **more: Any) -> Reply:
        first, *others = messages
        body: dict[str, Any] = {
            "model": "scripted-model",
            "messages": [{"role": "user", "content": first}, *others],
            **({"tools": [tool(name) for name in tools]} if tools else {}),
            **more,
        }
        if not self._stream:
            return _whole(await self._client.chat.completions.create(**body))
        return await _streamed(await self._client.chat.completions.create(**body, stream=True))


def _whole(completion: Any) -> Reply:
    (choice,) = completion.choices
    calls = choice.message.tool_calls or []
    return Reply(
        choice.message.content,
        [(call.function.name, call.function.arguments) for call in calls],
        [call.id for call in calls],
        choice.finish_reason,
        1,
    )


async def _streamed(events: Any) -> Reply:
    texts: list[str] = []
    calls: dict[int, list[str]] = {}
    ids: list[str] = []
    finish_reason: Any = None
    async for event in events:
        choice: Any = event.choices[0]
        finish_reason = choice.finish_reason
        if choice.delta.content:
            texts.append(str(choice.delta.content))
        parts: list[Any] = choice.delta.tool_calls or []
        for call in parts:
            if call.id:
                ids.append(call.id)
                calls[call.index] = [call.function.name]
            calls[call.index].append(call.function.arguments)
    spoken = [(name, "".join(arguments)) for name, *arguments in calls.values()]
    text = None if spoken else "".join(texts)
    return Reply(text, spoken, ids, finish_reason, max(len(texts), *map(len, calls.values()), 0))


@pytest.fixture
async def client(model: Served) -> AsyncGenerator[AsyncOpenAI]:
    # Reading the system's certificates would take longer than most of the tests.
    http = httpx2.AsyncClient(trust_env=False, verify=False)
    async with AsyncOpenAI(
        base_url=model.url, api_key="any", max_retries=0, http_client=http
    ) as client:
        yield client


@pytest.fixture(params=["streamed", "whole"])
def ask(request: pytest.FixtureRequest, client: AsyncOpenAI) -> Asker:
    return Asker(client, stream=request.param == "streamed")


@pytest.fixture
async def http(model: Served) -> AsyncGenerator[httpx2.AsyncClient]:
    base = model.url.removesuffix("/v1")
    async with httpx2.AsyncClient(base_url=base, trust_env=False, verify=False) as http:
        await http.delete("/requests")
        yield http


def step_done(call_id: str, result: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a client appends after a model call with one tool call."""
    call = {"id": call_id, "type": "function", "function": {"name": "a", "arguments": "{}"}}
    return (
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call_id, "content": result},
    )


async def test_it_says_what_it_is_told(ask: Asker) -> None:
    reply = await ask("/say Grüße,  all of you")
    assert (reply.text, reply.finish_reason) == ("Grüße,  all of you", "stop")


async def test_a_text_is_streamed_word_by_word(client: AsyncOpenAI) -> None:
    assert (await Asker(client, stream=True)("/say one two three")).pieces == 3


async def test_long_answers_have_so_many_tokens(ask: Asker) -> None:
    reply = await ask("/long 20 1")
    assert reply.text is not None
    assert len(reply.text.split()) == 20


async def test_long_answers_take_their_time(client: AsyncOpenAI) -> None:
    started = asyncio.get_running_loop().time()
    await Asker(client, stream=True)("/long 5 20")
    assert asyncio.get_running_loop().time() - started >= 0.08


async def test_tools_are_called_in_parallel(ask: Asker) -> None:
    reply = await ask('/call demo__add {"a": 1, "b": 2} & demo__current_time', tools=DEMO_TOOLS)
    assert reply.calls == [("demo__add", '{"a": 1, "b": 2}'), ("demo__current_time", "{}")]
    assert len(set(reply.call_ids)) == 2
    assert (reply.text, reply.finish_reason) == (None, "tool_calls")


async def test_arguments_are_streamed_in_several_pieces(client: AsyncOpenAI) -> None:
    ask = Asker(client, stream=True)
    assert (await ask('/call demo__add {"a": 1, "b": 2}', tools=DEMO_TOOLS)).pieces > 3


async def test_a_tool_that_is_not_offered_is_not_called(ask: Asker) -> None:
    reply = await ask("/call demo__add {} & demo__rm {}", tools=DEMO_TOOLS)
    assert (reply.text, reply.calls) == ("tool not offered: demo__rm", [])
    assert (await ask("/call demo__add")).text == "tool not offered: demo__add"


async def test_each_model_call_plays_its_step_and_then_it_is_done(ask: Asker) -> None:
    script = "/call demo__add\n/echo\n/say bye"
    first = await ask(script, tools=DEMO_TOOLS)
    assert first.finish_reason == "tool_calls"
    history = [*step_done(first.call_ids[0], "4")]
    assert (await ask(script, *history)).text == "4"
    history += step_done("b", "5")
    assert (await ask(script, *history)).text == "bye"
    history += step_done("c", "6")
    assert (await ask(script, *history)).text == "done"


async def test_a_new_user_message_is_a_new_turn(ask: Asker) -> None:
    history = [*step_done("a", "4"), {"role": "assistant", "content": "four"}]
    reply = await ask("/say old", *history, {"role": "user", "content": "/say new"})
    assert reply.text == "new"


async def test_a_message_may_come_in_parts(ask: Asker) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    parts = [picture, {"type": "text", "text": "/say first"}, {"type": "text", "text": "/say x"}]
    assert (await ask(parts)).text == "first"


async def test_it_shows_what_it_was_sent(ask: Asker) -> None:
    assert (await ask("/tools", tools=DEMO_TOOLS)).text == '["demo__add","demo__current_time"]'
    assert (await ask("/tools")).text == "[]"
    shown = await ask("/tool demo__add", tools=DEMO_TOOLS)
    assert json.loads(shown.text or "") == tool("demo__add")
    assert (await ask("/tool x", tools=DEMO_TOOLS)).text == "tool not offered: x"
    history = [*step_done("a", "4"), {"role": "assistant", "content": "4", "name": "é"}]
    user = {"role": "user", "content": "/messages"}
    shown = await ask("hi", *history, user)
    assert json.loads(shown.text or "") == [{"role": "user", "content": "hi"}, *history, user]


async def test_a_tool_result_is_echoed_to_the_last_byte(ask: Asker) -> None:
    result = " spaced\n\nout \u2028" * 2_000
    assert (await ask("/say x\n/echo", *step_done("a", result))).text == result
    assert (await ask("/echo")).text == "no tool result"


async def test_it_fails_so_often_and_then_goes_on(ask: Asker) -> None:
    script = "/fail 429 2 7\n/say at last"
    for _ in range(2):
        with pytest.raises(openai.RateLimitError) as failure:
            await ask(script)
        assert failure.value.response.headers["retry-after"] == "7"
        assert failure.value.code == "rate_limit_exceeded"
    assert (await ask(script)).text == "at last"


async def test_an_error_nobody_repeats_is_there_every_time(ask: Asker) -> None:
    for _ in range(3):
        with pytest.raises(openai.AuthenticationError):
            await ask("/fail 401")


async def test_a_dropped_answer_ends_in_the_middle(client: AsyncOpenAI) -> None:
    script = "/drop 3\n/say whole"
    tokens: list[str] = []
    events = await client.chat.completions.create(
        model="scripted-model", messages=[{"role": "user", "content": script}], stream=True
    )

    async def read() -> None:
        async for event in events:
            tokens.extend(filter(None, [event.choices[0].delta.content]))

    with pytest.raises(openai.APIConnectionError):
        await read()
    assert len(tokens) == 3
    assert (await Asker(client, stream=True)(script)).text == "whole"


async def test_a_dropped_answer_that_is_not_streamed_fails(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.APIConnectionError):
        await Asker(client, stream=False)("/drop 3")


async def test_it_hangs_and_sends_nothing(ask: Asker) -> None:
    with pytest.raises(openai.APITimeoutError):
        await ask("/hang 60\n/say late", timeout=0.1)
    assert (await ask("/hang 0.01\n/say late")).text == "late"
    assert (await ask("/hang 0.01")).text == "done"


async def test_without_a_script_it_answers_in_one_sentence(ask: Asker) -> None:
    reply = await ask("Good morning", tools=DEMO_TOOLS)
    assert reply.text == 'You said "Good morning", and I am only a scripted model.'


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("please ADD 2 and 3.5", ("demo__add", '{"a":2,"b":3.5}')),
        ("what time is it?", ("demo__current_time", "{}")),
        ("use demo__current_time", ("demo__current_time", "{}")),
    ],
)
async def test_without_a_script_it_calls_the_demo_tool_that_is_named(
    ask: Asker, message: str, call: tuple[str, str]
) -> None:
    assert (await ask(message, tools=DEMO_TOOLS)).calls == [call]
    reply = await ask(message, *step_done("a", "the result"), tools=DEMO_TOOLS)
    assert reply.text == f"{call[0]} answered: the result"
    after = await ask(message, *step_done("a", "1"), *step_done("b", "2"), tools=DEMO_TOOLS)
    assert after.text == "done"


async def test_the_usage_is_the_same_for_the_same_request(client: AsyncOpenAI) -> None:
    create = client.chat.completions.create
    said: list[Any] = [{"role": "user", "content": "/say one two"}]
    usages = [
        event.usage
        for _ in range(2)
        async for event in await create(
            model="scripted-model",
            messages=said,
            stream=True,
            stream_options={"include_usage": True},
        )
        if event.usage
    ]
    assert usages[0] == usages[1]
    assert usages[0].prompt_tokens > 5
    assert usages[0].completion_tokens == 2
    assert usages[0].total_tokens == usages[0].prompt_tokens + 2
    whole = await create(model="scripted-model", messages=said)
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 2


async def test_it_says_what_it_is(client: AsyncOpenAI) -> None:
    (listed,) = (await client.models.list()).data
    assert (listed.id, listed.owned_by) == ("scripted-model", "chatd")
    assert "scripted model" in str(listed.to_dict()["description"])
    assert (await client.models.retrieve("scripted-two")).id == "scripted-two"


async def test_only_scripted_models_exist(ask: Asker, client: AsyncOpenAI) -> None:
    assert (await ask("/say yes", model="scripted-fast")).text == "yes"
    with pytest.raises(openai.NotFoundError) as failure:
        await ask("/say no", model="gpt-5")
    assert failure.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("gpt-5")


async def test_after_a_crash_it_comes_back_at_its_url(state: Path) -> None:
    served = await start_model(state)
    url, pid = served.url, served.pid
    served.kill()
    assert not served.running
    await served.restart()
    assert (served.url, served.pid != pid) == (url, True)
    async with AsyncOpenAI(base_url=url, api_key="any", max_retries=0) as client:
        assert (await Asker(client, stream=True)("/say back")).text == "back"
    await served.stop()


async def test_another_api_key_is_refused(state: Path) -> None:
    served = await Served.start("chatd.dev.scripted_model", "--api-key", "right", folder=state)
    async with AsyncOpenAI(base_url=served.url, api_key="right", max_retries=0) as client:
        assert (await Asker(client, stream=False)("/say in")).text == "in"
        client.api_key = "wrong"
        with pytest.raises(openai.AuthenticationError) as failure:
            await client.models.list()
        assert failure.value.code == "invalid_api_key"
    await served.stop()


USER = {"role": "user", "content": "hi"}
ASKED, ANSWERED = step_done("a", "1")


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"model": None}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "clown", "content": "hi"}]}, "messages[0]"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": ["hi"]}]}, "messages[0].content"),
        ({"messages": [{"role": "assistant", "content": None}]}, "messages[0].content"),
        ({"messages": [USER, ASKED]}, "messages"),
        ({"messages": [USER, ASKED, USER]}, "messages[2]"),
        ({"messages": [USER, ANSWERED]}, "messages[1]"),
        ({"messages": [USER, ASKED, ANSWERED, ANSWERED]}, "messages[3]"),
        ({"tools": []}, "tools"),
        ({"tools": [{"type": "function"}]}, "tools[0].function.name"),
        ({"tools": [tool("no spaces")]}, "tools[0].function.name"),
        ({"tools": [tool("x" * 65)]}, "tools[0].function.name"),
        ({"tools": [tool("same"), tool("same")]}, "tools[1].function.name"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"n": 2}, "n"),
    ],
)
async def test_a_bad_request_is_refused_in_openais_shape(
    http: httpx2.AsyncClient, change: dict[str, Any], param: str
) -> None:
    body = {"model": "scripted-model", "messages": [USER], **change}
    response = await http.post("/v1/chat/completions", json=body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"]) == ("invalid_request_error", param)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"hi"', b'{"x": "\xff"}'])
async def test_a_body_that_is_no_object_is_refused(http: httpx2.AsyncClient, body: bytes) -> None:
    response = await http.post("/v1/chat/completions", content=body)
    assert (response.status_code, response.json()["error"]["code"]) == (400, None)


async def test_an_unknown_path_is_refused(http: httpx2.AsyncClient) -> None:
    response = await http.get("/v1/completions")
    assert (response.status_code, response.json()["error"]["code"]) == (404, "unknown_url")


async def test_it_counts_what_it_saw(http: httpx2.AsyncClient, ask: Asker) -> None:
    await ask("/say x")
    await ask("/say x", *step_done("a", "1"), model="scripted-two", tools=DEMO_TOOLS)
    seen = (await http.get("/requests")).json()
    assert [(one["model"], one["step"], one["tools"]) for one in seen] == [
        ("scripted-model", 1, 0),
        ("scripted-two", 2, 2),
    ]
    assert seen[0]["time"] <= seen[1]["time"]
    assert (await http.delete("/requests")).status_code == 204
    assert (await http.get("/requests")).json() == []


async def test_many_ask_at_once(client: AsyncOpenAI) -> None:
    ask = Asker(client, stream=True)
    replies = await asyncio.gather(*(ask(f"/say answer {number}") for number in range(40)))
    assert [reply.text for reply in replies] == [f"answer {number}" for number in range(40)]
