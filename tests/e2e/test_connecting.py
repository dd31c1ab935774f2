"""A turn that waits until its user has connected a tool server, in a browser."""

import re
from html import unescape
from urllib.parse import parse_qs, urlsplit

import httpx2

from tests.credentials.guarded import Guarded
from tests.credentials.rotating import Rotating, running as answering
from tests.e2e.client import Client, call
from tests.e2e.fleet import Fleet, Process, registered
from tests.e2e.view import text_of
from tests.mcp.peer import running

_FIELD = re.compile(r'<input type="hidden" name="(\w+)" value="([^"]*)">')


async def test_a_turn_waits_for_its_users_account_and_goes_on_by_itself(
    worker: Process, fleet: Fleet, admin: Client, member: Client
) -> None:
    async with answering(Rotating(60)) as authority, running(Guarded(authority)) as peer:
        oauth2 = {
            "auth_type": "oauth2",
            "oauth2_client_id": "chatd",
            "oauth2_auth_url": f"{authority.url}/authorize",
            "oauth2_token_url": authority.token_url,
        }
        async with registered(admin, "notion", peer.url, **oauth2) as server:
            posted = await member.create(
                call("notion__add"),
                "/say done",
                mcp_server_ids=[server["id"]],
                on_auth_required="wait",
            )
            async with member.watching(posted.chat_id) as watch:
                asked = await watch.until(lambda view: view.asked)
                (item,) = asked[-1]["open_items"]
                assert (item["kind"], item["server_id"]) == ("auth", server["id"])
                await _connect(fleet, member, item["connect_url"])
                await watch.over(posted.turn_id)
                assert watch.view.turns[posted.turn_id] == "completed"
                assert watch.view.notices == []
            _, result, _ = (await member.messages(posted))[1:]
        assert text_of(result) == "ok"
        (called,) = [heard for heard in peer.heard if heard.method == "tools/call"]
        assert authority.believes(called.headers["authorization"])


async def _connect(fleet: Fleet, member: Client, path: str) -> None:
    """As a program that has no session: it posts to the item's link, and opens what it gets."""
    answer = await member.http.post(fleet.apis[0].url + path, json={})
    assert answer.status_code == 201, answer.text
    link = _here(fleet, answer.json()["connect_url"])
    async with httpx2.AsyncClient(trust_env=False, verify=False) as browser:
        page = await browser.get(link)
        form = {name: unescape(value) for name, value in _FIELD.findall(page.text)}
        away = await browser.post(link.partition("?")[0], data=form)
        assert away.status_code == 303, away.text
        asked = parse_qs(urlsplit(away.headers["location"]).query)
        back = {"code": "code", "state": asked["state"][0]}
        done = await browser.get(_here(fleet, asked["redirect_uri"][0]), params=back)
        assert done.status_code == 200, done.text


def _here(fleet: Fleet, url: str) -> str:
    """At the front door that this fleet has."""
    parts = urlsplit(url)
    return fleet.apis[0].url + parts.path + (f"?{parts.query}" if parts.query else "")
