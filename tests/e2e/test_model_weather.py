"""What models do wrong: turns recover or fail with a clear error, and the chat goes on."""

import httpx2
import pytest

from chatd.dev.ports import free_port
from tests.e2e.client import Client, Posted, spoken
from tests.e2e.fleet import Fleet, Process, add_model, scripted_model
from tests.e2e.view import text_of


@pytest.mark.parametrize(
    ("status", "kind"), [(401, "auth"), (403, "auth"), (400, "config"), (402, "usage_limit")]
)
async def test_an_error_that_repeating_cannot_mend_fails_the_turn_at_once(
    worker: Process, model: httpx2.AsyncClient, member: Client, status: int, kind: str
) -> None:
    posted = await member.create(f"/fail {status}")
    async with member.watching(posted.chat_id) as watch:
        assert await watch.over(posted.turn_id) == await member.screen(posted.chat_id)
        assert watch.view.status == "error"
    error = (await member.turn(posted))["error"]
    assert (error["kind"], error["retryable"]) == (kind, False)
    assert [seen["kind"] for seen in watch.view.errors] == [kind]
    assert len((await model.get("/requests")).json()) == 1
    await _goes_on(member, posted)


async def test_retry_after_is_honoured(
    worker: Process, model: httpx2.AsyncClient, member: Client
) -> None:
    posted = await member.create("/fail 429 1 3", "/say patience")
    async with member.watching(posted.chat_id) as watch:
        await watch.over(posted.turn_id)
    (retry,) = watch.view.retries
    assert (retry["error"]["kind"], retry["delay_ms"]) == ("rate_limit", 3000)
    first, second = (await model.get("/requests")).json()
    assert second["time"] - first["time"] >= 3
    assert text_of((await member.messages(posted))[-1]) == "patience"


async def test_a_failure_of_the_server_is_tried_again(worker: Process, member: Client) -> None:
    posted = await member.create("/fail 500 1", "/say hello")
    async with member.watching(posted.chat_id) as watch:
        await watch.over(posted.turn_id)
    assert [retry["error"]["kind"] for retry in watch.view.retries] == ["generic"]
    assert watch.view.errors == []
    assert text_of((await member.messages(posted))[-1]) == "hello"


async def test_what_a_broken_answer_showed_is_withdrawn(worker: Process, member: Client) -> None:
    posted = await member.create("/drop 5", "/say whole")
    async with member.watching(posted.chat_id) as watch:
        assert await watch.over(posted.turn_id) == await member.screen(posted.chat_id)
    names = [event.name for event in watch.events]
    assert names.index("message_part") < names.index("preview_reset") < names.index("retry")
    assert [retry["error"]["kind"] for retry in watch.view.retries] == ["timeout"]
    assert text_of((await member.messages(posted))[-1]) == "whole"


async def test_a_model_that_dies_in_the_middle_is_asked_again(
    worker: Process, fleet: Fleet, admin: Client, member: Client
) -> None:
    """It is gone for a while, too: nobody listens, then it is back."""
    async with scripted_model(fleet.folder / "mortal") as model:
        config = await add_model(admin, model.url)
        posted = await member.create("/long 50 20", model_config_id=config)
        async with member.watching(posted.chat_id) as watch:
            await watch.until(lambda view: view.preview.startswith("word1 word2 "))
            model.kill()
            await watch.until(lambda view: len(view.retries) == 2)
            assert watch.view.preview == ""
            await model.restart()
            assert await watch.over(posted.turn_id) == await member.screen(posted.chat_id)
    assert {retry["error"]["kind"] for retry in watch.view.retries} == {"timeout"}
    assert text_of((await member.messages(posted))[-1]) == spoken(50)


async def test_a_wrong_key_and_a_wrong_model_are_told_apart_and_can_be_mended(
    worker: Process, fleet: Fleet, admin: Client, member: Client
) -> None:
    async with scripted_model(fleet.folder / "strict", "--api-key", "right") as model:
        wrong_key = await add_model(admin, model.url, key="wrong")
        wrong_name = await add_model(admin, model.url, key="right", model="no-such-model")
        first = await member.create("/say hello", model_config_id=wrong_key)
        assert (await member.ended(first))["error"]["kind"] == "auth"
        second = await member.say(first.chat_id, "/say hello", model_config_id=wrong_name)
        error = (await member.ended(second))["error"]
        assert (error["kind"], error["status_code"]) == ("config", 404)
        assert "does not know this model" in error["message"]

        configs = await admin.get("/chats/model-configs")
        providers = {config["id"]: config["provider_id"] for config in configs}
        await admin.patch(f"/chats/providers/{providers[wrong_key]}", {"api_key": "right"})
        third = await member.say(first.chat_id, "/say mended", model_config_id=wrong_key)
        assert (await member.ended(third))["status"] == "completed"


async def test_a_model_nobody_answers_for_is_tried_until_it_is_there(
    worker: Process, fleet: Fleet, admin: Client, member: Client
) -> None:
    port = free_port()
    config = await add_model(admin, f"http://127.0.0.1:{port}/v1")
    posted = await member.create("/say at last", model_config_id=config)
    async with member.watching(posted.chat_id) as watch:
        await watch.until(lambda view: view.retries)
        async with scripted_model(fleet.folder / "late", port=port):
            await watch.over(posted.turn_id)
    assert {retry["error"]["kind"] for retry in watch.view.retries} == {"timeout"}
    assert text_of((await member.messages(posted))[-1]) == "at last"


async def _goes_on(member: Client, posted: Posted) -> None:
    again = await member.say(posted.chat_id, "/say still here")
    assert (await member.ended(again))["status"] == "completed"
