"""The scripted model as a server: what it reports, what it refuses, and that it comes back."""

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI

from chatd.dev.served import Served
from chatd.dev.stack import start_model
from tests.dev.asking import DEMO_TOOLS, Asker, step_done, tool


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


async def test_a_tools_picture_is_not_what_the_user_said(client: AsyncOpenAI) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
    call, result = step_done("c", "one picture")
    shown: Any = {"role": "user", "content": [{"type": "text", "text": "From it:"}, picture]}
    asked = {"role": "user", "content": "/call picture {}\n/say seen"}
    said: Any = [asked, call, result, shown]
    answer = await client.chat.completions.create(model="scripted-model", messages=said)
    assert answer.choices[0].message.content == "seen"
