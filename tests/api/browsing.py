"""A user's browser on its way through a connection: its own cookies, forms, no redirects."""

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
from fastapi import FastAPI

from chatd.store.sessions import NewSession
from tests.api.conftest import Person, client

ORIGIN = "http://127.0.0.1:8000"
"""Of the access URL of tests."""

_FIELD = re.compile(r'<input type="hidden" name="(\w+)" value="([^"]*)">')
_ACTION = re.compile(r'<form method="post" action="([^"]*)">')


class Browser:
    def __init__(self, http: httpx2.AsyncClient) -> None:
        self.http = http

    def hold(self, session: NewSession) -> None:
        """From now on it is signed in."""
        value = f"{session.token}.{session.csrf}"
        self.http.cookies.set("chatd_session", value, domain="127.0.0.1", path="/")

    async def open(self, url: str, **headers: str) -> httpx2.Response:
        return await self.http.get(url, headers=headers)

    async def agree(self, page: httpx2.Response, **changes: str) -> httpx2.Response:
        """Send the consent page's form."""
        form = fields(page) | changes
        action = _ACTION.search(page.text)
        assert action is not None, page.text
        return await self.http.post(ORIGIN + unescape(action[1]), data=form)

    async def leave(self, connect_url: str) -> str:
        """The authorization URL, after consent."""
        page = await self.open(connect_url)
        assert page.status_code == 200, page.text
        answer = await self.agree(page)
        assert answer.status_code == 303, answer.text
        return answer.headers["location"]

    async def connect(self, connect_url: str) -> httpx2.Response:
        """All the way: what the callback answers."""
        return await self.open(await sign_in(await self.leave(connect_url)))


async def sign_in(authorization_url: str) -> str:
    """The authorization server lets everybody in. Where it sends the browser then."""
    async with httpx2.AsyncClient() as outside:
        answer = await outside.get(authorization_url)
    assert answer.status_code == 302, answer.text
    return answer.headers["location"]


@asynccontextmanager
async def browsing(app: FastAPI) -> AsyncGenerator[Browser]:
    async with client(app) as http:
        yield Browser(http)


def fields(page: httpx2.Response) -> dict[str, str]:
    return {name: unescape(value) for name, value in _FIELD.findall(page.text)}


def query(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


async def ask_to_connect(person: Person, server_id: str, **body: Any) -> str:
    """The link for this person's browser."""
    answer = await person.post(f"/mcp/servers/{server_id}/oauth2/connect", body)
    assert answer.status_code == 201, answer.text
    return answer.json()["connect_url"]
