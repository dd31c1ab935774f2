"""A user disconnects: gone here in any case, and taken back where it came from."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from starlette.responses import JSONResponse, Response

from chatd.store.db import Database
from tests.api.browsing import ask_to_connect, browsing, sign_in
from tests.api.conftest import Person
from tests.api.issuer import Issuer, serving_issuer
from tests.api.test_oauth_discovery import add
from tests.api.test_servers import policy_version


@pytest.fixture
async def issuer() -> AsyncGenerator[Issuer]:
    async with serving_issuer() as issuer:
        yield issuer


@pytest.fixture
async def server(admin: Person, member: Person, issuer: Issuer, app: FastAPI) -> Any:
    """One that the member is connected to."""
    made = await add(admin, issuer)
    async with browsing(app) as browser:
        answer = await browser.connect(await ask_to_connect(member, made["id"]))
        assert answer.status_code == 200
    return made


@dataclass
class Redeeming:
    """A callback that waits for its token."""

    asked: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    coming: asyncio.Task[httpx2.Response] | None = None

    async def hold(self) -> None:
        self.asked.set()
        await self.released.wait()

    async def end(self) -> httpx2.Response:
        assert self.coming is not None
        self.released.set()
        return await self.coming


async def disconnect(person: Person, server: Any) -> Any:
    answer = await person.delete(f"/mcp/servers/{server['id']}/oauth2/disconnect")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def connected(person: Person, server: Any) -> bool:
    return (await person.get(f"/mcp/servers/{server['id']}")).json()["auth_connected"]


GONE = {"token_revoked": False, "token_revocation_error": ""}


async def test_the_token_is_taken_back_and_deleted(
    member: Person, server: Any, issuer: Issuer, db: Database
) -> None:
    version = await policy_version(db)
    assert await disconnect(member, server) == {"token_revoked": True, "token_revocation_error": ""}
    assert issuer.provider.refreshing == {}
    assert await connected(member, server) is False
    assert await policy_version(db) == version + 1
    row = await db.fetch_one("SELECT action, actor_id FROM audit_log ORDER BY id DESC LIMIT 1")
    assert row is not None
    assert tuple(row.values()) == ("disconnect", member.user.id)


async def test_a_second_time_nothing_happens(
    member: Person, server: Any, db: Database, issuer: Issuer
) -> None:
    await disconnect(member, server)
    version, asked = await policy_version(db), len(issuer.asked)
    assert await disconnect(member, server) == GONE
    assert (await policy_version(db), len(issuer.asked)) == (version, asked)


async def test_what_was_begun_before_does_not_connect_again(
    member: Person, server: Any, app: FastAPI
) -> None:
    async with browsing(app) as browser:
        back = await sign_in(await browser.leave(await ask_to_connect(member, server["id"])))
        await disconnect(member, server)
        assert (await browser.open(back)).status_code == 400
    assert await connected(member, server) is False


@pytest.fixture
async def redeeming(
    member: Person, issuer: Issuer, app: FastAPI, server: Any
) -> AsyncGenerator[Redeeming]:
    """The member connects once more; the authorization server has not handed out the token yet."""
    begun = Redeeming()
    issuer.before_token = begun.hold
    async with browsing(app) as browser:
        back = await sign_in(await browser.leave(await ask_to_connect(member, server["id"])))
        coming = asyncio.create_task(browser.open(back))
        await begun.asked.wait()
        begun.coming = coming
        yield begun
        begun.released.set()
        await coming


async def test_who_disconnects_while_a_code_is_redeemed_stays_disconnected(
    member: Person, server: Any, issuer: Issuer, redeeming: Redeeming, db: Database
) -> None:
    assert (await disconnect(member, server))["token_revoked"] is True
    page = await redeeming.end()
    assert (page.status_code, "You disconnected this server" in page.text) == (403, True)
    assert await connected(member, server) is False
    assert len(issuer.forms("/revoke")) == 2
    assert issuer.provider.refreshing == {}
    rows = await db.fetch("SELECT action FROM audit_log WHERE action LIKE '%connect' ORDER BY id")
    assert [row["action"] for row in rows] == ["connect", "disconnect"]


async def test_that_is_so_where_nothing_was_connected_before(
    member: Person, server: Any, issuer: Issuer, redeeming: Redeeming, db: Database
) -> None:
    await db.fetch("DELETE FROM oauth_tokens")
    assert await disconnect(member, server) == GONE
    assert (await redeeming.end()).status_code == 403
    assert await connected(member, server) is False


async def test_somebody_elses_disconnecting_is_no_reason(
    admin: Person, member: Person, server: Any, redeeming: Redeeming
) -> None:
    await disconnect(admin, server)
    assert (await redeeming.end()).status_code == 200
    assert await connected(member, server) is True


async def test_who_is_suspended_and_let_in_again_meanwhile_is_not_connected(
    admin: Person, member: Person, server: Any, issuer: Issuer, redeeming: Redeeming
) -> None:
    for suspended in (True, False):
        place = f"/users/{member.user.id}"
        assert (await admin.patch(place, {"suspended": suspended})).is_success
    assert (await redeeming.end()).status_code == 403
    assert await connected(member, server) is False
    assert issuer.provider.refreshing == {}


async def test_connecting_again_after_that_works(
    app: FastAPI, member: Person, server: Any, issuer: Issuer, redeeming: Redeeming
) -> None:
    await disconnect(member, server)
    issuer.before_token = None
    async with browsing(app) as browser:
        assert (await browser.connect(await ask_to_connect(member, server["id"]))).is_success
    assert (await redeeming.end()).status_code == 403
    assert await connected(member, server) is True
    assert len(issuer.provider.refreshing) == 1


async def test_only_ones_own_connection_is_ended(
    admin: Person, member: Person, server: Any
) -> None:
    assert await disconnect(admin, server) == GONE
    assert await connected(member, server) is True


async def test_what_the_server_says_no_to_is_deleted_all_the_same(
    member: Person, server: Any, issuer: Issuer
) -> None:
    told = {"error": "invalid_client", "error_description": "s3cret of theirs"}
    issuer.replies["/revoke"] = lambda: JSONResponse(told, 401)
    ended = await disconnect(member, server)
    assert ended == {"token_revoked": False, "token_revocation_error": "invalid_client"}
    assert await connected(member, server) is False


async def test_where_only_access_tokens_are_taken_back_that_is_done(
    member: Person, server: Any, issuer: Issuer
) -> None:
    replies = [Response(), JSONResponse({"error": "unsupported_token_type"}, 400)]
    issuer.replies["/revoke"] = replies.pop
    assert (await disconnect(member, server))["token_revoked"] is True
    hints = [form["token_type_hint"] for form in issuer.forms("/revoke")]
    assert hints == ["refresh_token", "access_token"]


async def test_a_server_that_hangs_is_not_waited_for(
    member: Person, server: Any, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatd.connecting.redeeming.REVOKE_S", 0.2)
    released = asyncio.Event()

    class Hanging(Response):
        async def __call__(self, *_: Any) -> None:
            await released.wait()

    issuer.replies["/revoke"] = Hanging
    ended = await disconnect(member, server)
    released.set()
    assert ended == {"token_revoked": False, "token_revocation_error": "no answer in time"}
    assert await connected(member, server) is False


async def test_a_token_that_cannot_be_read_can_still_be_deleted(
    member: Person, server: Any, db: Database
) -> None:
    await db.fetch("UPDATE oauth_tokens SET access_token_key_id = 'lost'")
    assert (await disconnect(member, server))["token_revocation_error"] != ""
    assert await db.fetch("SELECT 1 FROM oauth_tokens") == []


async def test_a_client_that_was_replaced_takes_its_tokens_back(
    admin: Person, member: Person, server: Any, issuer: Issuer
) -> None:
    again = {"register_client": True}
    await admin.post(f"/mcp/servers/{server['id']}/oauth2/discover", again)
    assert await connected(member, server) is True
    assert (await disconnect(member, server))["token_revoked"] is True


async def test_a_server_that_moved_is_to_be_connected_again(
    admin: Person, member: Person, server: Any
) -> None:
    async with serving_issuer() as other:
        changed = await admin.patch(f"/mcp/servers/{server['id']}", {"url": other.mcp_url})
        assert changed.status_code == 200, changed.text
    view = (await member.get(f"/mcp/servers/{server['id']}")).json()
    assert (view["auth_connected"], view["needs_reauth"]) == (False, "client_changed")


async def test_another_auth_type_forgets_every_connection(
    admin: Person, server: Any, db: Database
) -> None:
    await admin.patch(f"/mcp/servers/{server['id']}", {"auth_type": "none"})
    assert await db.fetch("SELECT 1 FROM oauth_tokens") == []


async def test_who_is_suspended_loses_every_connection(
    admin: Person, member: Person, server: Any, issuer: Issuer, db: Database
) -> None:
    place = f"/users/{member.user.id}"
    assert (await admin.patch(place, {"suspended": True})).is_success
    assert issuer.provider.refreshing == {}
    row = await db.fetch_one(
        "SELECT actor_id FROM audit_log WHERE action = 'disconnect' ORDER BY id DESC LIMIT 1"
    )
    assert row is not None
    assert row["actor_id"] == admin.user.id
    assert (await admin.patch(place, {"suspended": False})).is_success
    assert await connected(member, server) is False


async def test_who_is_erased_is_disconnected_at_the_servers_too(
    admin: Person, member: Person, server: Any, issuer: Issuer
) -> None:
    assert (await admin.delete(f"/users/{member.user.id}")).status_code == 204
    assert issuer.provider.refreshing == {}
