"""What an account's connection is made of is where it is used and nowhere else: an authorization
server that repeats all it is sent, and a search of everything that is kept or told."""

import re
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx2
import orjson

from chatd.store.db import Database
from tests.e2e.client import Client, call
from tests.e2e.fleet import Fleet, registered
from tests.e2e.places import collect, holds, redis_values, rows, traces
from tests.e2e.repeating import SENT, Repeating
from tests.e2e.view import text_of
from tests.mcp.peer import running
from tests.outbound.raw_server import serving

_FIELD = re.compile(r'<input type="hidden" name="(\w+)" value="([^"]*)">')

SLUG = "guarded"
TABLE = "table oauth_tokens"
ANSWERS = "what clients got"
CARRIED = frozenset({"ticket", "state", "cookie"})
"""These belong to the browser, which gets them in answers."""
LEAST = {
    "access token": 2,
    "refresh token": 2,
    "id token": 2,
    "code": 2,
    "verifier": 2,
    "client secret": 1,
    "basic": 1,
    "registration token": 1,
    "ticket": 2,
    "state": 2,
    "cookie": 2,
}
"""How many of each the test has to have seen, else it has looked for nothing."""


class Seen:
    """All that could be read by anybody, by place, at any moment that we looked."""

    def __init__(self, db: Database, redis_url: str) -> None:
        self.front_door = ""
        self.places: dict[str, bytes] = {}
        self.cookies: set[str] = set()
        self._db = db
        self._redis_url = redis_url

    def add(self, place: str, text: bytes) -> None:
        self.places[place] = self.places.get(place, b"") + text + b"\n"

    async def look(self) -> None:
        """Into the tables and Redis as they are now."""
        found = await rows(self._db) | await redis_values(self._redis_url)
        for place, text in found.items():
            self.add(place, text)

    async def hear(self, answer: httpx2.Response) -> None:
        """An answer of the front door; a stream's events are heard by who follows it."""
        streamed = answer.headers.get("content-type", "").startswith("text/event-stream")
        if str(answer.url).startswith(self.front_door) and not streamed:
            headers = answer.headers.multi_items()
            self.add(ANSWERS, repr(headers).encode() + await answer.aread())
            set_cookies = answer.headers.get_list("set-cookie")
            values = {line.partition(";")[0].partition("=")[2] for line in set_cookies}
            self.cookies |= values - {"", '""'}


async def test_nothing_that_an_account_is_connected_with_is_found_anywhere(
    crew: Fleet, db: Database
) -> None:
    seen = Seen(db, crew.stack.redis_url)
    async with serving(collect) as collector, running(Repeating(seen.look)) as authority:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(_talking(crew, seen, collector.port))
            admin, member = [
                await stack.enter_async_context(crew.client(name, api=-1))
                for name in ("ada", "max")
            ]
            for client in (admin, member):
                client.http.event_hooks = {"response": [seen.hear]}
            server = await stack.enter_async_context(
                registered(admin, SLUG, authority.url, auth_type="oauth2")
            )
            await _connected_and_disconnected(member, server["id"], authority, seen)
            await _ask_everything(admin, member, server["id"])
            await seen.look()
        seen.add("traces", await traces(collector, "chatd-api", "tool_call", "oauth2/disconnect"))
        for file, text in crew.logs().items():
            seen.add(file, text)
    _was_searched_well(seen, authority)
    for kind, secrets in authority.secrets.items():
        places = seen.places.keys() - ({ANSWERS} if kind in CARRIED else set())
        for secret in secrets:
            found = [place for place in places if holds(seen.places[place], secret)]
            assert (kind, found) == (kind, [])


@asynccontextmanager
async def _talking(crew: Fleet, seen: Seen, collector: int) -> AsyncGenerator[None]:
    """A worker and a front door that say all they can, and have said it when the block is over."""
    settings = {
        "CHATD_LOG_LEVEL": "debug",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector}",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    await crew.worker(100, **settings)
    seen.front_door = (await crew.api(**settings)).url
    try:
        yield
    finally:
        await crew.dismiss()
        await crew.apis.pop().child.stop()


async def _connected_and_disconnected(
    member: Client, server: str, authority: Repeating, seen: Seen
) -> None:
    """Everything goes wrong once and well once, but the end, which only goes wrong."""
    authority.refusing = True
    page = await _connect(member, server, authority, seen)
    assert (page.status_code, page.url.path.rpartition("/")[2]) == (502, "callback")
    authority.refusing = False
    page = await _connect(member, server, authority, seen)
    assert page.status_code == 200, page.text
    assert SENT in await _told_by_tool(member, server, seen)
    authority.expire()
    assert SENT in await _told_by_tool(member, server, seen, a=1)
    assert authority.refreshes == 1
    authority.expire()
    authority.refusing = True
    assert SENT not in await _told_by_tool(member, server, seen)
    await seen.look()
    ended = await member.http.delete(f"/mcp/servers/{server}/oauth2/disconnect")
    assert ended.json() == {"token_revoked": False, "token_revocation_error": "unnamed"}
    refused = {"authorization_code", "refresh_token", "revocation"}
    assert set(authority.refused) == refused


async def _connect(
    member: Client, server: str, authority: Repeating, seen: Seen
) -> httpx2.Response:
    """As a browser without a session does it; gives the last page."""
    asked = await member.post(f"/mcp/servers/{server}/oauth2/connect", {})
    link: str = asked["connect_url"]
    (ticket,) = parse_qs(urlsplit(link).query)["ticket"]
    authority.secrets["ticket"].add(ticket)
    hooks = {"response": [seen.hear]}
    async with httpx2.AsyncClient(trust_env=False, verify=False, event_hooks=hooks) as browser:
        page = await browser.get(link)
        form = {name: unescape(value) for name, value in _FIELD.findall(page.text)}
        step = await browser.post(link.partition("?")[0], data=form)
        while step.has_redirect_location:
            step = await browser.get(urljoin(str(step.url), step.headers["location"]))
    authority.secrets["cookie"] |= seen.cookies
    return step


async def _told_by_tool(member: Client, server: str, seen: Seen, **arguments: Any) -> str:
    """The end of a turn that calls the tool, which is followed all the way."""
    posted = await member.create(
        call(f"{SLUG}__add", **arguments), "/echo", mcp_server_ids=[server]
    )
    async with member.watching(posted.chat_id) as watch:
        await watch.over(posted.turn_id)
        events: list[Any] = [event.data for event in watch.events]
    seen.add(ANSWERS, orjson.dumps(events))
    await member.turn(posted)
    return text_of((await member.messages(posted))[-1])


async def _ask_everything(admin: Client, member: Client, server: str) -> None:
    """What the front door tells of servers, people, health and what was done."""
    place = f"/mcp/servers/{server}"
    for path in ("/mcp/servers", place, "/health/report", "/audit", "/audit/export"):
        assert (await admin.http.get(path)).status_code == 200
    for path in ("/mcp/servers", place, "/chats"):
        assert (await member.http.get(path)).status_code == 200
    assert (await admin.http.post(f"{place}/test")).status_code == 200


def _was_searched_well(seen: Seen, authority: Repeating) -> None:
    """There was something to find, and where it was expected something was found."""
    known = {kind: len(secrets) for kind, secrets in authority.secrets.items()}
    assert {kind: least for kind, least in LEAST.items() if known.get(kind, 0) < least} == {}
    assert all(len(each) >= 20 for secrets in authority.secrets.values() for each in secrets)
    assert authority.unauthorized >= 2
    assert {place.partition("-")[0] for place in seen.places} >= {"worker", "api"}
    assert any(place.startswith("redis chatd:") for place in seen.places)
    for place in (ANSWERS, "table chat_messages"):
        assert SENT.encode() in seen.places[place]
    assert b"callback" in seen.places["traces"]
    assert b'"kind":"state"' in seen.places["table oauth_states"]
    assert b'"access_token":"\\\\x' in seen.places[TABLE]
