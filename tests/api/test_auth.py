"""Who is let in."""

import httpx2
import pytest

from chatd.store import tokens
from chatd.store.db import Database
from tests.api.conftest import BASE, Person

BARE = "Bearer"
INVALID = 'Bearer error="invalid_token"'


@pytest.mark.parametrize(
    ("header", "challenge"),
    [
        (None, BARE),
        ("", BARE),
        ("Bearer", BARE),
        ("Bearer   ", BARE),
        ("Basic YTpi", BARE),
        ("Bearer chatd_unknown", INVALID),
        ("bearer chatd_unknown", INVALID),
    ],
)
async def test_without_a_valid_token_nobody_is_let_in(
    anonymous: httpx2.AsyncClient, header: str | None, challenge: str
) -> None:
    headers = {} if header is None else {"Authorization": header}
    answer = await anonymous.get(f"{BASE}/chats", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == challenge
    assert answer.json()["code"] == "unauthorized"


async def test_a_token_in_the_url_does_not_count(
    anonymous: httpx2.AsyncClient, member: Person
) -> None:
    answer = await anonymous.get(f"{BASE}/chats?access_token={member.token}")
    assert answer.status_code == 401


async def test_the_scheme_is_case_insensitive(
    anonymous: httpx2.AsyncClient, member: Person
) -> None:
    headers = {"Authorization": f"bEARER {member.token}"}
    assert (await anonymous.get(f"{BASE}/chats", headers=headers)).status_code == 200


async def test_a_revoked_token_is_refused_at_once(member: Person, db: Database) -> None:
    assert (await member.get("/chats")).status_code == 200
    async with db.transaction() as session:
        for token in await tokens.list_tokens(session, member.user.id):
            await tokens.revoke_token(session, token.id)
    answer = await member.get("/chats")
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, INVALID)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/chats/providers"),
        ("POST", "/chats/providers"),
        ("PATCH", "/chats/providers/01a1fab5-c2cb-7173-874c-35bf875269c4"),
        ("DELETE", "/chats/model-configs/01a1fab5-c2cb-7173-874c-35bf875269c4"),
        ("GET", "/chats/model-configs"),
        ("POST", "/mcp/servers"),
        ("PATCH", "/mcp/servers/01a1fab5-c2cb-7173-874c-35bf875269c4"),
        ("DELETE", "/mcp/servers/01a1fab5-c2cb-7173-874c-35bf875269c4"),
    ],
)
async def test_members_do_not_administer(member: Person, method: str, path: str) -> None:
    answer = await member.http.request(method, BASE + path)
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
