"""Models that send what is no answer: named, withdrawn, or given back to the model."""

import asyncio
from typing import Any

import pytest

from tests.e2e.client import Client
from tests.e2e.fleet import Process, add_model
from tests.e2e.view import text_of
from tests.llm.provider import (
    DONE,
    STOP,
    call,
    event,
    events,
    failing,
    streaming,
    text,
)
from tests.outbound.raw_server import Answer, Exchange, serving

TOO_MUCH = {
    "error": {
        "message": "max_tokens is too large: 10000000. This model supports at most 16384.",
        "type": "invalid_request_error",
        "param": "max_completion_tokens",
        "code": "invalid_value",
    }
}
WEB_PAGE = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 7\r\n\r\n<html/>"


async def _web_page(exchange: Exchange) -> None:
    await exchange.send(WEB_PAGE)


async def _good(exchange: Exchange) -> None:
    await streaming(event(text("all ")), event(text("is well")), event(STOP), DONE)(exchange)


@pytest.mark.parametrize(
    ("answer", "kind", "says"),
    [
        (failing(400, TOO_MUCH), "config", "maximum of output tokens"),
        (_web_page, "config", "no model API"),
    ],
    ids=["too-many-output-tokens", "a-web-page"],
)  # fmt: skip
async def test_a_wrong_configuration_is_named(
    worker: Process, admin: Client, member: Client, answer: Answer, kind: str, says: str
) -> None:
    async with serving(answer) as raw:
        config = await _raw_model(admin, raw.port, options={"max_output_tokens": 10_000_000})
        turn, _ = await member.run("hello", model_config_id=config)
    assert turn["error"]["kind"] == kind
    assert says in turn["error"]["message"]


@pytest.mark.parametrize(
    "bad",
    [
        streaming(event(text("all ")), b"data: {not json\n\n", event(STOP), DONE),
        streaming(event(text("all ")), event('{"choices": 7}'), DONE),
        streaming(event(text("all ")), event('{"error": {"message": "overloaded"}}'), DONE),
        streaming(event(text("all "))),
    ],
    ids=["no-json", "no-chunk", "error-frame", "no-end"],
)
async def test_a_damaged_answer_is_withdrawn_and_asked_for_again(
    worker: Process, admin: Client, member: Client, bad: Answer
) -> None:
    answers = iter([bad, _good])

    async def answer(exchange: Exchange) -> None:
        await next(answers)(exchange)

    async with serving(answer) as raw:
        config = await _raw_model(admin, raw.port)
        posted = await member.create("hello", model_config_id=config)
        async with member.watching(posted.chat_id) as watch:
            assert await watch.over(posted.turn_id) == await member.screen(posted.chat_id)
    assert len(watch.view.retries) == 1
    assert text_of((await member.messages(posted))[-1]) == "all is well"


async def test_a_model_that_hangs_and_hangs_up_is_asked_again(
    worker: Process, admin: Client, member: Client
) -> None:
    asked, let_go = asyncio.Event(), asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        if asked.is_set():
            await _good(exchange)
        else:
            asked.set()
            await let_go.wait()
            exchange.writer.close()

    async with serving(answer) as raw:
        config = await _raw_model(admin, raw.port)
        posted = await member.create("hello", model_config_id=config)
        async with member.watching(posted.chat_id) as watch:
            await asked.wait()
            let_go.set()
            await watch.over(posted.turn_id)
    assert [retry["error"]["kind"] for retry in watch.view.retries] == ["timeout"]
    assert text_of((await member.messages(posted))[-1]) == "all is well"


async def test_tool_arguments_that_are_no_json_go_back_to_the_model(
    worker: Process, admin: Client, member: Client
) -> None:
    wanted = call(index=0, id="c1", function={"name": "demo__add", "arguments": '{"a": 2,'})
    answers = iter([streaming(events(wanted, STOP)), _good])
    bodies: list[bytes] = []

    async def answer(exchange: Exchange) -> None:
        bodies.append(exchange.body)
        await next(answers)(exchange)

    async with serving(answer) as raw:
        config = await _raw_model(admin, raw.port)
        turn, messages = await member.run("add", model_config_id=config)
    assert turn["status"] == "completed"
    result = messages[2]["content"][0]
    assert result["is_error"]
    assert "invalid JSON input" in result["result"]
    assert b"invalid JSON input" in bodies[1]


async def _raw_model(admin: Client, port: int, **config: Any) -> str:
    return await add_model(admin, f"http://127.0.0.1:{port}/v1", **config)
