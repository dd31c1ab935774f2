"""Streams over WebSockets: who may open one, what comes over it, and how it closes."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from fastapi import FastAPI
from websockets.exceptions import InvalidStatus

from chatd.api.flow import Pace
from chatd.settings import Settings
from chatd.store.db import Database
from chatd.stream.entry import render
from tests.api.conftest import BASE, Person, text
from tests.api.served import closing_code, heard, open_socket, serving
from tests.waiting import soon, until

OURS = "http://127.0.0.1:8000"


@pytest.fixture
async def address(app: FastAPI, settings: Settings) -> AsyncGenerator[str]:
    async with serving(app, settings) as address:
        yield address


@pytest.fixture
async def chat(model: str, admin: Person) -> str:
    answer = await admin.post("/chats", {"content": text("hello")})
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def quicken(app: FastAPI, **pace: float) -> None:
    """Streams opened from here on have this pace."""
    parts = app.state.parts
    streams = replace(parts.streams, pace=Pace(**pace))
    app.state.parts = replace(parts, streams=streams)


async def refused(address: str, path: str, person: Person, **headers: str) -> tuple[int, str]:
    with pytest.raises(InvalidStatus) as caught:
        async with open_socket(address, path, person, **headers):
            pass
    answer = caught.value.response
    return answer.status_code, bytes(answer.body or b"").decode()


# --- before the upgrade


@pytest.mark.parametrize("path", ["/chats/{chat}/stream", "/chats/watch"])
async def test_without_a_valid_token_there_is_no_socket(
    address: str, chat: str, admin: Person, path: str
) -> None:
    stranger = replace(admin, token="wrong")
    status, body = await refused(address, path.format(chat=chat), stranger)
    assert (status, '"code":"unauthorized"' in body) == (401, True)


@pytest.mark.parametrize("path", ["/chats/{chat}/stream", "/chats/watch"])
async def test_a_foreign_page_may_not_open_one(
    address: str, chat: str, admin: Person, path: str
) -> None:
    status, body = await refused(
        address, path.format(chat=chat), admin, Origin="https://evil.example"
    )
    assert (status, '"code":"forbidden"' in body) == (403, True)


async def test_our_own_page_may(address: str, chat: str, admin: Person) -> None:
    async with open_socket(address, f"/chats/{chat}/stream", admin, Origin=OURS) as socket:
        await heard(socket, "status")


async def test_somebody_elses_chat_is_not_found(address: str, chat: str, member: Person) -> None:
    assert (await refused(address, f"/chats/{chat}/stream", member))[0] == 404
    assert (await refused(address, f"/chats/{uuid4()}/stream", member))[0] == 404


@pytest.mark.parametrize("path", ["/chats/x/stream", "/chats/{chat}/stream?after_id=0"])
async def test_a_bad_request_is_answered_as_one(
    address: str, chat: str, admin: Person, path: str
) -> None:
    status, body = await refused(address, path.format(chat=chat), admin)
    assert (status, '"code":"bad_request"' in body) == (400, True)


async def test_nobody_follows_after_a_refusal(
    app: FastAPI, address: str, chat: str, member: Person
) -> None:
    await refused(address, f"/chats/{chat}/stream", member)
    assert app.state.parts.streams.hub.followers == 0


# --- what comes over it


async def test_the_events_are_those_of_the_other_streams(
    address: str, chat: str, admin: Person
) -> None:
    async with open_socket(address, f"/chats/{chat}/stream", admin) as socket:
        first = await heard(socket, "message")
        assert first["data"]["message"]["content"] == text("hello")
        last = await heard(socket, "status")
    async with open_socket(address, f"/chats/{chat}/stream?cursor={last['id']}", admin) as socket:
        await admin.post(f"/chats/{chat}/messages", {"content": text("more")})
        event = await heard(socket, "queue_update")
        assert [m["content"] for m in event["data"]["queued_messages"]] in ([], [text("more")])


async def test_a_follower_has_read_what_it_was_told(
    address: str, chat: str, admin: Person, db: Database
) -> None:
    await db.fetch(
        """INSERT INTO chat_messages (chat_id, turn_id, step, position, role, content)
        SELECT chat_id, id, 1, 0, 'assistant', '[]' FROM turns WHERE chat_id = $1""",
        UUID(chat),
    )
    assert (await admin.get(f"/chats/{chat}")).json()["has_unread"]
    before = await db.fetch("SELECT version FROM chats")
    async with open_socket(address, f"/chats/{chat}/stream", admin) as socket:
        await heard(socket, "status")

        async def read() -> bool:
            return not (await admin.get(f"/chats/{chat}")).json()["has_unread"]

        await until(read)
    assert await db.fetch("SELECT version FROM chats") == before


# --- how it closes


async def test_a_client_that_speaks_is_closed(address: str, chat: str, admin: Person) -> None:
    async with open_socket(address, f"/chats/{chat}/stream", admin) as socket:
        await socket.send("hello?")
        assert await closing_code(socket) == 1003


async def test_a_revoked_token_closes_it(
    app: FastAPI, address: str, chat: str, admin: Person, db: Database
) -> None:
    async with open_socket(address, f"/chats/{chat}/stream", admin) as socket:
        await heard(socket, "status")
        await db.fetch("UPDATE api_tokens SET revoked_at = clock_timestamp()")
        await app.state.parts.people.revoked(admin.user.id)
        assert (await heard(socket, "chat_error"))["data"]["error"]["kind"] == "auth"
        assert await closing_code(socket) == 1008


@pytest.mark.parametrize("path", ["/chats/{chat}/stream", "/chats/watch"])
async def test_a_process_that_drains_closes_it(
    app: FastAPI, address: str, chat: str, admin: Person, path: str
) -> None:
    async with open_socket(address, path.format(chat=chat), admin) as socket:
        app.state.drain.start()
        assert await closing_code(socket) == 1012


async def test_a_deleted_chat_ends_it(address: str, chat: str, admin: Person) -> None:
    async with open_socket(address, f"/chats/{chat}/stream", admin) as socket:
        await heard(socket, "status")
        await admin.delete(f"/chats/{chat}")
        await heard(socket, "chat_error")
        assert await closing_code(socket) == 1000


async def test_hanging_up_is_noticed(app: FastAPI, address: str, chat: str, admin: Person) -> None:
    hub = app.state.parts.streams.hub
    async with open_socket(address, f"/chats/{chat}/stream", admin) as socket:
        await heard(socket, "status")
        assert hub.followers == 1

    async def gone() -> bool:
        return hub.followers == 0

    await until(gone)


# --- readers who take nothing, over real sockets


async def fill(app: FastAPI, chat: str) -> None:
    """More than any socket's buffers hold."""
    parts = app.state.parts
    for version in range(2, 42):
        notice = render("notice", chat, None, 0, 0, {"message": "x" * 500_000})
        await parts.db.fetch("UPDATE chats SET version = $1", version)
        parts.commands._publisher.announce(UUID(chat), version, notice)


@pytest.mark.parametrize("kind", ["websocket", "sse"])
async def test_a_reader_that_takes_nothing_is_dropped_without_an_error(
    app: FastAPI, address: str, chat: str, admin: Person, kind: str, caplog: Any
) -> None:
    quicken(app, send_timeout_s=0.2)
    hub = app.state.parts.streams.hub
    host, _, port = address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
    upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    upgrade += "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    writer.write(
        f"GET {BASE}/chats/{chat}/stream HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {admin.token}\r\n"
        f"{upgrade if kind == 'websocket' else ''}\r\n".encode()
    )
    await reader.readuntil(b"\r\n\r\n")
    await soon(lambda: hub.followers == 1)
    cast(asyncio.Transport, writer.transport).pause_reading()
    await fill(app, chat)
    await soon(lambda: hub.followers == 0)
    await soon(lambda: not any("run_asgi" in repr(task) for task in asyncio.all_tasks()))
    cast(asyncio.Transport, writer.transport).resume_reading()
    async with asyncio.timeout(20):
        while await reader.read(2**20):  # until the server has closed it
            pass
    writer.close()
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
