"""What tools answer, on its way to the model, the database and the screen."""

from typing import Any

import orjson
import pytest

from chatd.store.db import Database
from tests.e2e.client import Client, at_once, call
from tests.e2e.fleet import Process, add_model
from tests.e2e.journal import journaled
from tests.e2e.tool_servers import played, result_bytes
from tests.e2e.view import text_of
from tests.llm.provider import DONE, STOP, event, streaming
from tests.outbound.raw_server import serving


async def test_a_picture_reaches_the_model_as_an_image(worker: Process, member: Client) -> None:
    _, messages = await member.run(call("demo__picture"), "/messages")
    (media,) = messages[2]["content"][0]["media"]
    assert media["media_type"] == "image/png"
    seen = orjson.loads(text_of(messages[-1]))
    urls = [part["image_url"]["url"] for message in seen for part in _images(message)]
    assert urls == [f"data:image/png;base64,{media['data']}"]


@pytest.mark.parametrize("size", [200_000, 10_000_000])
async def test_a_big_result_is_cut_once_and_everybody_sees_the_same(
    worker: Process, member: Client, db: Database, size: int
) -> None:
    posted = await member.create(call("demo__big", n=size), "/echo")
    async with member.watching(posted.chat_id) as watch:
        assert await watch.over(posted.turn_id) == await member.screen(posted.chat_id)
    _, _, result, answer = await member.messages(posted)
    kept = text_of(result)
    assert 100_000 < len(kept) < 130_000
    assert kept.count("bytes of this result were removed") == 1
    (row,) = await journaled(db, posted)
    assert text_of(answer) == kept == row["result"]


async def test_structured_content_is_not_said_twice(worker: Process, member: Client) -> None:
    _, messages = await member.run(call("demo__add", a=2, b=3), "/messages")
    assert text_of(messages[2]) == "5"
    told = [part for part in orjson.loads(text_of(messages[-1])) if part["role"] == "tool"]
    assert [message["content"] for message in told] == ["5"]


async def test_an_error_of_a_tool_is_a_result(worker: Process, member: Client) -> None:
    turn, messages = await member.run(call("demo__fail", message="no such ticket"), "/echo")
    assert turn["status"] == "completed"
    assert messages[2]["content"][0]["is_error"]
    assert "no such ticket" in text_of(messages[-1])


async def test_text_of_all_languages_comes_back_as_it_was(worker: Process, member: Client) -> None:
    said = 'Ünïcødé 日本語 🦜 \u202eabc \\u0000 "quoted" </script> ∎'
    _, messages = await member.run(call("demo__echo", text=said), "/echo")
    assert [text_of(message) for message in messages[2:]] == [said, said]


async def test_what_no_text_can_hold_is_replaced_in_tool_results(
    worker: Process, admin: Client, member: Client
) -> None:
    """Invalid UTF-8, a NUL and half a surrogate pair."""
    said = b'{"content":[{"type":"text","text":"a\xff\xfeb \\u0000 \\ud800 c"}]}'
    async with played(admin, "garbled", tools__call=result_bytes(said)) as garbled:
        posted = await member.create(call("garbled__add"), "/echo", **garbled.only)
        async with member.watching(posted.chat_id) as watch:
            assert await watch.over(posted.turn_id) == await member.screen(posted.chat_id)
    _, _, result, answer = await member.messages(posted)
    assert text_of(result) == text_of(answer)
    assert text_of(result).replace("\ufffd", "") == "ab   c"
    again = await member.say(posted.chat_id, "/say still here")
    assert (await member.ended(again))["status"] == "completed"


async def test_what_no_text_can_hold_is_replaced_in_a_models_answer(
    worker: Process, admin: Client, member: Client
) -> None:
    delta = '{"choices":[{"index":0,"delta":{"content":"a \\u0000 \\udc00 b"}}]}'
    async with serving(streaming(event(delta), event(STOP), DONE)) as raw:
        config = await add_model(admin, f"http://127.0.0.1:{raw.port}/v1")
        posted = await member.create("hello", model_config_id=config)
        async with member.watching(posted.chat_id) as watch:
            assert await watch.over(posted.turn_id) == await member.screen(posted.chat_id)
    assert text_of((await member.messages(posted))[-1]) == "a \ufffd \ufffd b"


async def test_parallel_calls_run_in_parallel_and_answer_in_their_order(
    worker: Process, member: Client, db: Database
) -> None:
    naps = [0.6, 0.3, 0.5]
    calls = [call("demo__slow", seconds=nap) for nap in naps]
    posted = await member.create(at_once(*calls), "/say rested")
    async with member.watching(posted.chat_id) as watch:
        assert await watch.over(posted.turn_id) == await member.screen(posted.chat_id)
    assert (await member.turn(posted))["status"] == "completed"
    rows = await journaled(db, posted)
    assert max(row["sent_at"] for row in rows) < min(row["finished_at"] for row in rows)
    results = (await member.messages(posted))[2:5]
    assert [text_of(result) for result in results] == [f"took {nap} seconds" for nap in naps]


def _images(message: Any) -> list[Any]:
    content = message["content"] if isinstance(message["content"], list) else []
    return [part for part in content if part["type"] == "image_url"]
