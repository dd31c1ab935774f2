"""The scripted model over real HTTP, asked by the openai client: what it answers."""

import asyncio
import json

import openai
import pytest
from openai import AsyncOpenAI

from tests.dev.asking import DEMO_TOOLS, Asker, step_done, tool


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
