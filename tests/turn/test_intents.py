"""Calls that say what they are for: a label while they stream, never a part of the call."""

from typing import Any

import orjson
import pytest
from redis.asyncio import Redis

from chatd.turn.deps import Control
from chatd.turn.run import run_turn
from tests.seed import change_server
from tests.stream.listening import data, listening
from tests.turn.bench import Bench, call

OWN = {"a": 2, "b": 3}


@pytest.fixture
async def telling(bench: Bench, demo_server: Any) -> Bench:
    """The demo server's tools ask for an intent."""
    await change_server(
        bench.seed.db,
        bench.server_id,
        url=demo_server.url,
        availability="default_on",
        trust_annotations=True,
        model_intent=True,
    )
    return bench


def calls(messages: list[Any]) -> list[Any]:
    return [part for message in messages for part in message["content"] if "args" in part]


async def test_the_label_is_streamed_once_before_the_call_is_whole_and_stored(
    telling: Bench, redis: Redis
) -> None:
    claim = await telling.claim(
        call("add", model_intent="adding\u200b two  numbers", properties=OWN), "/echo"
    )
    async with listening(redis, claim.chat_id) as channel:
        assert await run_turn(telling.deps, claim, Control()) == "completed"
        parts: list[Any] = []
        status = ""
        while status != "completed":
            for event in data(await channel.entry()):
                status = event.get("status", status)
                if event["type"] == "message_part" and event["part"]["type"] == "tool-call":
                    parts.append(event["part"])
    (label,) = [part for part in parts if "intent" in part]
    (stored,) = calls(await telling.messages(claim))
    assert label["intent"] == stored["intent"] == "adding two numbers"
    assert label["tool_call_id"] == stored["tool_call_id"]
    assert "".join(part["args_delta"] for part in parts) == stored["args"]
    assert (await telling.told(claim))[-1] == "5"


@pytest.mark.parametrize(
    "arguments",
    [{"model_intent": "adding", "properties": OWN}, {"model_intent": "adding", **OWN}, OWN],
)
async def test_the_server_gets_its_own_arguments_and_the_model_what_it_wrote(
    telling: Bench, arguments: dict[str, Any]
) -> None:
    claim = await telling.run(call("add", **arguments), "/messages")
    made, result, messages = (await telling.told(claim))[-3:]
    assert result == "-> 5"
    (sent,) = [message for message in orjson.loads(messages) if message.get("tool_calls")]
    (again,) = sent["tool_calls"]
    assert orjson.loads(again["function"]["arguments"]) == arguments
    assert again.keys() == {"id", "type", "function"}
    assert again["function"].keys() == {"name", "arguments"}
    assert made == f"demo__add({again['function']['arguments']})"


async def test_a_call_without_an_intent_has_no_label(telling: Bench) -> None:
    claim = await telling.run(call("add", **OWN), "/echo")
    (stored,) = calls(await telling.messages(claim))
    assert "intent" not in stored
