"""A second OpenAI-compatible server as the model of whole turns."""

import pytest

from tests.e2e.client import Client
from tests.e2e.fleet import Process, add_model
from tests.e2e.view import text_of
from tests.peers.programs import Peer


@pytest.fixture
async def model(aimock: Peer, admin: Client) -> str:
    """The id of a model config that leads there."""
    return await add_model(admin, aimock.url, key="any", model="gpt-5-mini")


async def test_its_text_is_streamed(worker: Process, member: Client, model: str) -> None:
    posted = await member.create("say hello", model_config_id=model)
    async with member.watching(posted.chat_id) as watch:
        assert await watch.over(posted.turn_id) == await member.screen(posted.chat_id)
    answer = (await member.messages(posted))[-1]
    assert text_of(answer) == (
        "Hello from a model that nobody here wrote, streamed in small pieces."
    )
    assert watch.view.longest
    assert answer["usage"]["output_tokens"] > 0


async def test_its_parallel_calls_are_run_and_answered(
    worker: Process, member: Client, model: str
) -> None:
    posted = await member.create("use two tools", model_config_id=model)
    async with member.watching(posted.chat_id) as watch:
        assert await watch.over(posted.turn_id) == await member.screen(posted.chat_id)
    assert (await member.turn(posted))["status"] == "completed"
    _, asked, *results, answer = await member.messages(posted)
    assert [part["tool_name"] for part in asked["content"]] == ["demo__add", "demo__echo"]
    assert [text_of(result) for result in results] == [
        "5",
        "a longer text, so that its arguments come in pieces",
    ]
    assert text_of(answer) == "Both tools have answered."


async def test_what_it_does_not_know_fails_the_turn(
    worker: Process, member: Client, model: str
) -> None:
    turn, _ = await member.run("something it has no answer for", model_config_id=model)
    assert turn["status"] == "failed"
    assert not turn["error"]["retryable"]
