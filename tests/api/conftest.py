"""The front door in process, on real services, with an administrator and a member."""

import base64
import os
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from redis.asyncio import Redis
from starlette.routing import BaseRoute, Route

from chatd.api.app import create_app
from chatd.dev.valkey import Valkey
from chatd.settings import Settings
from chatd.store import tokens, users
from chatd.store.db import Database
from chatd.store.users import Role, User

BASE = "/api/experimental"


@dataclass(frozen=True)
class Person:
    """A user with a client that holds a token of theirs."""

    user: User
    token: str
    http: httpx2.AsyncClient

    async def get(self, path: str, **options: Any) -> httpx2.Response:
        return await self.http.get(BASE + path, **options)

    async def post(self, path: str, body: Any, **options: Any) -> httpx2.Response:
        return await self.http.post(BASE + path, json=body, **options)

    async def patch(self, path: str, body: Any) -> httpx2.Response:
        return await self.http.patch(BASE + path, json=body)

    async def put(self, path: str, body: Any) -> httpx2.Response:
        return await self.http.put(BASE + path, json=body)

    async def delete(self, path: str) -> httpx2.Response:
        return await self.http.delete(BASE + path)


@pytest.fixture
def settings(database_url: str, valkey: Valkey) -> Settings:
    key = base64.b64encode(os.urandom(32)).decode()
    return Settings.model_validate(
        {
            "database_url": database_url,
            "redis_url": valkey.url,
            "encryption_keys": f"k1:{key}",
            "mcp_allowed_cidrs": "127.0.0.0/8",
        }
    )


@pytest.fixture(scope="session")
def known_routes() -> list[BaseRoute]:
    """Those of the first application: FastAPI works them out at their first request, in 0.2 s."""
    return []


@pytest.fixture
async def app(
    settings: Settings, known_routes: list[BaseRoute], redis: Redis
) -> AsyncGenerator[FastAPI]:
    """On a Valkey that is empty (`redis`): who visits too often is counted there."""
    app = create_app(settings)
    share_routes(app, known_routes)
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def anonymous(app: FastAPI) -> AsyncGenerator[httpx2.AsyncClient]:
    async with client(app) as http:
        yield http


@pytest.fixture
async def admin(app: FastAPI, db: Database) -> AsyncGenerator[Person]:
    person = await enter(app, db, "ada", "admin")
    yield person
    await person.http.aclose()


@pytest.fixture
async def member(app: FastAPI, db: Database) -> AsyncGenerator[Person]:
    person = await enter(app, db, "max", "member")
    yield person
    await person.http.aclose()


@pytest.fixture
async def model(admin: Person) -> str:
    """The id of a model config, the default one."""
    owner = {"provider": "openai-compat", "display_name": "x", "base_url": "http://127.0.0.1:9/v1"}
    provider = (await admin.post("/chats/providers", owner)).json()
    config = {"provider_id": provider["id"], "model": "m", "context_limit": 1000}
    answer = await admin.post("/chats/model-configs", config)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def share_routes(app: FastAPI, known: list[BaseRoute]) -> None:
    """Nothing of a test is in a route, except in those of the OpenAPI document: it has an app."""
    if not known:
        known += app.routes
    app.router.routes[:] = [
        own if isinstance(own, Route) else same for own, same in zip(app.routes, known, strict=True)
    ]


def client(app: FastAPI, **headers: str) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(app=app)
    return httpx2.AsyncClient(transport=transport, base_url="http://chatd", headers=headers)


async def enter(app: FastAPI, db: Database, username: str, role: Role) -> Person:
    token = tokens.new_token()
    async with db.transaction() as session:
        user = await users.create_user(session, username, role=role)
        await tokens.create_token(session, user.id, token)
    return Person(user, token, client(app, authorization=f"Bearer {token}"))


def text(words: str) -> list[dict[str, str]]:
    """The content of a message that says this."""
    return [{"type": "text", "text": words}]
