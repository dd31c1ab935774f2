"""Exports on a real socket: one at a time, broken off for who may not go on or takes nothing."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx2
import pytest
from fastapi import FastAPI

from chatd.api.flow import Pace
from chatd.settings import Settings
from chatd.store.db import Database
from tests.api.conftest import BASE, Person
from tests.api.served import serving
from tests.waiting import WITHIN_S, soon

PATHS = ["/users/me/export", "/audit/export"]


@pytest.fixture
async def plenty(admin: Person, db: Database) -> None:
    """More than any socket holds, in both exports."""
    await db.fetch(
        """INSERT INTO files (id, owner_id, kind, name, media_type, size, sha256, data)
        SELECT gen_random_uuid(), $1, 'upload', 'x', 'text/plain', 1, 'x',
            repeat('x', 10000000)::bytea FROM generate_series(1, 4)""",
        admin.user.id,
    )
    await db.fetch(
        """INSERT INTO audit_log (action, target_type, target_id, request_id, after)
        SELECT 'update', 'model_config', 'x', '', jsonb_build_object('a', repeat('x y ', 100000))
        FROM generate_series(1, 40)"""
    )


@asynccontextmanager
async def exporting(address: str, person: Person, path: str) -> AsyncGenerator[httpx2.Response]:
    headers = {"Authorization": f"Bearer {person.token}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=WITHIN_S) as http,
        http.stream("GET", f"http://{address}{BASE}{path}") as answer,
    ):
        assert answer.status_code == 200
        yield answer


async def to_the_end(answer: httpx2.Response) -> None:
    async for _ in answer.aiter_raw():
        continue


@pytest.mark.parametrize("path", PATHS)
async def test_a_user_has_one_export_at_a_time(
    app: FastAPI, settings: Settings, plenty: None, admin: Person, member: Person, path: str
) -> None:
    async with serving(app, settings) as address:
        async with exporting(address, admin, path) as answer:
            for other in PATHS:
                refused = await admin.get(other)
                assert (refused.status_code, refused.json()["code"]) == (429, "too_many")
                assert refused.headers["retry-after"]
            assert (await member.get("/users/me/export")).status_code == 200
            await to_the_end(answer)
        await soon(lambda: not app.state.parts.permits._held)
        assert (await admin.get(PATHS[0])).status_code == 200


@pytest.mark.parametrize("path", PATHS)
async def test_an_export_is_broken_off_when_its_token_is_revoked(
    app: FastAPI, settings: Settings, plenty: None, admin: Person, path: str
) -> None:
    async with serving(app, settings) as address, exporting(address, admin, path) as answer:
        (permit,) = app.state.parts.permits._held
        (token,) = (await admin.get("/users/me/tokens")).json()["tokens"]
        assert (await admin.delete(f"/users/me/tokens/{token['id']}")).status_code == 204
        await soon(lambda: permit.revoked)
        with pytest.raises(httpx2.RemoteProtocolError):
            await to_the_end(answer)
    assert app.state.parts.permits._held == set()


@pytest.mark.parametrize("path", PATHS)
async def test_a_reader_that_takes_nothing_is_dropped(
    app: FastAPI, settings: Settings, plenty: None, admin: Person, path: str
) -> None:
    parts = app.state.parts
    app.state.parts = replace(parts, streams=replace(parts.streams, pace=Pace(send_timeout_s=0.2)))
    async with serving(app, settings) as address, exporting(address, admin, path) as answer:
        await soon(lambda: not app.state.parts.permits._held)
        with pytest.raises(httpx2.RemoteProtocolError):
            await to_the_end(answer)


@pytest.mark.parametrize("path", PATHS)
async def test_who_hangs_up_may_export_again(
    app: FastAPI, settings: Settings, plenty: None, admin: Person, path: str
) -> None:
    async with serving(app, settings) as address:
        async with exporting(address, admin, path):
            assert app.state.parts.permits._held
        await soon(lambda: not app.state.parts.permits._held)


async def test_an_export_that_fails_at_once_holds_nothing(
    app: FastAPI, admin: Person, member: Person
) -> None:
    nobody = "00000000-0000-0000-0000-000000000000"
    assert (await admin.get(f"/users/{nobody}/export")).status_code == 404
    assert app.state.parts.permits._held == set()
