"""Titles on request, through the front door, with a worker's service beside it."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest
from fastapi import FastAPI
from redis.asyncio import Redis

from chatd.dev.served import Served
from chatd.queue import Wakes
from chatd.retitling import Retitling
from chatd.store.db import Database
from chatd.title_queue import TitleQueue
from chatd.titles import Titles
from tests.api.conftest import Person, text
from tests.seed import KEYS, make_model
from tests.turning import turn_deps


@pytest.fixture
async def chat_id(member: Person, db: Database, scripted_model: Served) -> str:
    await make_model(db, scripted_model.url)
    return (await member.post("/chats", {"content": text("what time is it")})).json()["id"]


@pytest.fixture
async def worker(db: Database, redis: Redis) -> AsyncGenerator[None]:
    async with turn_deps(db, redis) as deps:
        titles = Titles(db, KEYS, deps.models, deps.publisher, deps.wakes)
        task = asyncio.create_task(titles.serve(TitleQueue(redis)))
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await titles.close()


async def test_without_a_worker_the_answer_is_a_504(
    app: FastAPI, member: Person, chat_id: str, redis: Redis
) -> None:
    parts = app.state.parts
    hurried = Retitling(parts.db, Wakes(redis), TitleQueue(redis, wait_s=0.05), parts.limits)
    app.state.parts = replace(parts, titles=hurried)
    answer = await member.post(f"/chats/{chat_id}/title/regenerate", {})
    assert (answer.status_code, answer.json()["code"]) == (504, "timeout")
    assert answer.json()["message"] == "No title was generated in time; try again later."


async def test_one_at_a_time(member: Person, chat_id: str, db: Database) -> None:
    await db.fetch("UPDATE chats SET retitling_until = clock_timestamp() + interval '1 minute'")
    for path in ("regenerate", "propose"):
        assert (await member.post(f"/chats/{chat_id}/title/{path}", {})).status_code == 409


async def test_a_chat_of_somebody_else_is_not_found(admin: Person, chat_id: str) -> None:
    for path in ("regenerate", "propose"):
        assert (await admin.post(f"/chats/{chat_id}/title/{path}", {})).status_code == 404


async def test_a_title_is_proposed_then_taken(member: Person, chat_id: str, worker: None) -> None:
    await member.patch(f"/chats/{chat_id}", {"title": "Mine"})
    before = (await member.get(f"/chats/{chat_id}")).json()
    proposed = await member.post(f"/chats/{chat_id}/title/propose", {})
    assert (proposed.status_code, proposed.json()) == (200, {"title": "What time is it"})
    assert (await member.get(f"/chats/{chat_id}")).json() == before
    taken = await member.post(f"/chats/{chat_id}/title/regenerate", {})
    assert (taken.status_code, taken.json()) == (200, {**before, "title": "What time is it"})
