"""Signing in with an OpenID provider: who gets in, as whom, with which role and groups."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2
import pytest
from pydantic import SecretStr

from chatd.core.logins import ClaimRules, Login
from chatd.core.oauth import Client, CodeAnswer, StoredToken
from chatd.core.servers import visitor
from chatd.credentials import TokenService
from chatd.outbound import Outbound
from chatd.signing_in import Begun, SignedInNow, SignInFailed, SigningIn
from chatd.store import policy_state, users
from chatd.store.chat_servers import load_server
from chatd.store.db import Database
from chatd.store.oauth_tokens import read_token_of
from chatd.store.sessions import authenticate_session, end_session, rotate_session
from chatd.store.user_links import add_link, links_of
from tests.api.oidc_provider import CLIENT_ID, CLIENT_SECRET, Provider, providing
from tests.seed import KEYS, make_group, make_server, make_user

LOOPBACK = (ip_network("127.0.0.0/8"),)
ACCESS_URL = "http://127.0.0.1:8000"


@pytest.fixture
async def provider() -> AsyncGenerator[Provider]:
    async with providing() as provider:
        yield provider


@pytest.fixture
async def outbound(provider: Provider) -> AsyncGenerator[Outbound]:
    """Gone before the provider, which waits for its connections to end."""
    outbound = Outbound(mcp_allowed=LOOPBACK)
    yield outbound
    await outbound.aclose()


@dataclass
class Door:
    """A deployment with this login, and a browser in front of it."""

    db: Database
    outbound: Outbound
    provider: Provider
    login: Login
    service: SigningIn = field(init=False)

    def __post_init__(self) -> None:
        self.service = SigningIn(
            self.db, KEYS, self.outbound, ACCESS_URL, self.login, refetch_s=0.0
        )

    def with_(self, *, rules: ClaimRules | None = None, **changes: Any) -> "Door":
        changed = replace(self.login, rules=rules or self.login.rules, **changes)
        return Door(self.db, self.outbound, self.provider, changed)

    async def away(self, begun: Begun) -> CodeAnswer:
        """What the provider sends the browser back with."""
        async with httpx2.AsyncClient() as http:
            answer = await http.get(begun.url)
        said = dict(parse_qsl(urlsplit(answer.headers["location"]).query))
        return CodeAnswer(said["state"], said["code"], said.get("iss"))

    async def finish(
        self, begun: Begun, answer: CodeAnswer, *, cookie: str | None = None, former: str = ""
    ) -> SignedInNow:
        shown = {begun.flow: begun.cookie if cookie is None else cookie}
        return await self.service.finish(
            answer, lambda flow: shown.get(flow, ""), former=former, request_id="r"
        )

    async def sign_in(self) -> users.User:
        """Once through all of it. Answers who that is here."""
        begun = await self.service.begin("")
        entered = await self.finish(begun, await self.away(begun))
        found = await authenticate_session(self.db, entered.session.token)
        assert found is not None
        async with self.db.transaction() as session:
            return await users.lock_user(session, found.actor.user_id)

    async def refused(self) -> str:
        """The same where it does not work: why not."""
        with pytest.raises(SignInFailed) as caught:
            await self.sign_in()
        return caught.value.reason

    async def token_of(self, user: users.User) -> StoredToken:
        token = await read_token_of(self.db, KEYS, server_id=None, user_id=user.id)
        assert token is not None
        return token

    async def groups_of(self, user: users.User) -> list[str]:
        shown = await users.show_user(self.db, user.id)
        return [group["name"] for group in shown["groups"]]


@pytest.fixture
def door(db: Database, outbound: Outbound, provider: Provider) -> Door:
    client = Client(CLIENT_ID, "client_secret_basic", SecretStr(CLIENT_SECRET))
    return Door(db, outbound, provider, Login(provider.url, client))


# --- who it is


async def test_a_first_login_makes_a_user(door: Door, db: Database) -> None:
    user = await door.sign_in()
    assert (user.username, user.name, user.role) == ("grace.hopper", "Grace Hopper", "member")
    (link,) = await links_of(db, user.id)
    assert (link.issuer, link.subject) == (door.provider.url, "subject-1")
    assert link.email == "grace@example.org"
    lines = await db.fetch("SELECT action, target_type, actor_id FROM audit_log ORDER BY id")
    assert [(line["action"], line["target_type"]) for line in lines] == [
        ("create", "user"),
        ("sign_in", "session"),
    ]
    assert {line["actor_id"] for line in lines} == {user.id}


async def test_whoever_comes_back_is_the_same_user_under_any_name(door: Door) -> None:
    first = await door.sign_in()
    door.provider.claims |= {"preferred_username": "somebody", "email": "other@example.org"}
    again = await door.sign_in()
    assert (again.id, again.username) == (first.id, "grace.hopper")


async def test_nobody_takes_over_a_name(door: Door, db: Database) -> None:
    local = await make_user(db, "grace.hopper", role="admin")
    first = await door.sign_in()
    door.provider.claims |= {"sub": "subject-2"}
    second = await door.sign_in()
    assert local.user_id not in (first.id, second.id)
    assert [first.username, second.username] == ["grace.hopper-2", "grace.hopper-3"]
    assert second.role == "member"


@pytest.mark.parametrize(
    ("claims", "username"),
    [
        ({"preferred_username": "Ünïcode Näme"}, "unicode-name"),
        ({"preferred_username": "A@Corp.Example"}, "a@corp.example"),
        ({"preferred_username": None}, "grace@example.org"),
        ({"preferred_username": "../..", "email": None}, "user"),
        ({"preferred_username": 7, "email": "x\x00y@z"}, "xy@z"),
        ({"preferred_username": "x" * 300}, "x" * 55),
    ],
)
async def test_names_are_made_usable(door: Door, claims: dict[str, Any], username: str) -> None:
    door.provider.claims |= claims
    assert (await door.sign_in()).username == username


async def test_a_user_who_was_given_a_login_has_it(door: Door, db: Database) -> None:
    local = await make_user(db, "grace")
    async with db.transaction() as session:
        await add_link(
            session, local.user_id, issuer=door.provider.url, subject="subject-1", claims={}
        )
    assert (await door.sign_in()).id == local.user_id


async def test_two_first_logins_at_once_make_one_user(door: Door) -> None:
    first, second = await asyncio.gather(door.sign_in(), door.sign_in())
    assert first.id == second.id


async def test_where_signing_up_is_off_only_known_users_get_in(door: Door) -> None:
    closed = door.with_(allow_signup=False)
    assert await closed.refused() == "no_account"
    user = await door.sign_in()
    assert (await closed.sign_in()).id == user.id


async def test_who_is_suspended_is_refused_and_gets_nothing(door: Door, db: Database) -> None:
    user = await door.sign_in()
    before = await door.token_of(user)
    async with db.transaction() as session:
        await users.update_user(session, user.id, {"suspended": True})
    assert await door.refused() == "suspended"
    assert (await door.token_of(user)).id == before.id
    assert await db.fetch("SELECT 1 FROM sessions WHERE revoked_at IS NULL") == []


# --- what claims say


async def test_the_role_follows_its_claim(door: Door, db: Database) -> None:
    await make_user(db, "root", role="admin")
    rules = ClaimRules(role="realm_access.roles", admin_values=frozenset({"chatd-admin"}))
    ruled = door.with_(rules=rules)
    door.provider.claims["realm_access"] = {"roles": ["chatd-admin", "other"]}
    assert (await ruled.sign_in()).role == "admin"
    door.provider.claims["realm_access"] = {"roles": ["other"]}
    assert (await ruled.sign_in()).role == "member"
    del door.provider.claims["realm_access"]
    assert (await ruled.sign_in()).role == "member"
    (line,) = await db.fetch("SELECT before, after FROM audit_log WHERE action = 'update'")
    assert (line["before"], line["after"]) == ({"role": "admin"}, {"role": "member"})


async def test_the_last_administrator_stays_one(door: Door) -> None:
    ruled = door.with_(rules=ClaimRules(role="role", admin_values=frozenset({"boss"})))
    door.provider.claims["role"] = "boss"
    assert (await ruled.sign_in()).role == "admin"
    door.provider.claims["role"] = "clerk"
    assert (await ruled.sign_in()).role == "admin"


async def test_a_login_and_a_change_of_its_user_do_not_wait_for_each_other(
    door: Door, db: Database
) -> None:
    await make_user(db, "root", role="admin")
    user = await door.sign_in()
    door.provider.claims["role"] = "boss"
    ruled = door.with_(rules=ClaimRules(role="role", admin_values=frozenset({"boss"})))
    async with db.transaction() as session:
        await (await session.connection()).execute(users.LOCK_ADMINS)
        signing = asyncio.create_task(ruled.sign_in())
        await asyncio.sleep(0.5)
        await users.lock_user(session, user.id)
    assert (await signing).role == "admin"


async def test_without_a_rule_a_login_changes_no_role(door: Door, db: Database) -> None:
    user = await door.sign_in()
    async with db.transaction() as session:
        await users.update_user(session, user.id, {"role": "admin"})
    await make_user(db, "root", role="admin")
    assert (await door.sign_in()).role == "admin"


async def test_groups_follow_their_claim_and_no_others_move(door: Door, db: Database) -> None:
    for name in ("Writers", "Readers", "local"):
        await make_group(db, name)
    ruled = door.with_(
        rules=ClaimRules(groups="groups", group_names={"cn=w": "Writers", "cn=r": "Readers"})
    )
    door.provider.claims["groups"] = ["cn=w", "local", "unknown"]
    user = await ruled.sign_in()
    assert await door.groups_of(user) == ["Writers"]
    await db.fetch(
        "INSERT INTO group_members (group_id, user_id) SELECT id, $1 FROM groups"
        " WHERE name = 'local'",
        user.id,
    )
    door.provider.claims["groups"] = "cn=r"
    await ruled.sign_in()
    assert await door.groups_of(user) == ["Readers", "local"]
    del door.provider.claims["groups"]
    await ruled.sign_in()
    assert await door.groups_of(user) == ["local"]


async def test_groups_of_the_same_name_need_no_mapping(door: Door, db: Database) -> None:
    for name in ("Writers", "Readers"):
        await make_group(db, name)
    ruled = door.with_(rules=ClaimRules(groups="groups"))
    door.provider.claims["groups"] = ["Writers", "Strangers"]
    user = await ruled.sign_in()
    assert await door.groups_of(user) == ["Writers"]
    assert len(await db.fetch("SELECT 1 FROM groups")) == 2


async def test_a_login_that_changes_groups_moves_the_policy(door: Door, db: Database) -> None:
    before = (await policy_state.read_state(db)).version
    await door.sign_in()
    assert (await policy_state.read_state(db)).version > before


async def test_claims_that_the_token_leaves_out_come_from_userinfo(door: Door) -> None:
    door.provider.claims = {"sub": "subject-1"}
    door.provider.userinfo = {"sub": "subject-1", "preferred_username": "info"}
    assert (await door.sign_in()).username == "info"


async def test_anothers_userinfo_is_refused(door: Door) -> None:
    door.provider.claims = {"sub": "subject-1"}
    door.provider.userinfo = {"sub": "subject-2", "preferred_username": "info"}
    assert await door.refused() == "its claims are of another user"


# --- what is no proof


@pytest.mark.parametrize(
    ("in_token", "reason"),
    [
        ({"nonce": "another"}, "its nonce is another login's"),
        ({"nonce": None}, "it has no nonce"),
        ({"iss": "https://evil.example"}, "it is from another issuer"),
        ({"aud": "somebody-else"}, "it is for another client"),
        ({"exp": 1}, "it has expired"),
        ({"sub": "x" * 256}, "it does not say who its user is"),
    ],
)
async def test_an_id_token_must_be_of_this_login(
    door: Door, db: Database, in_token: dict[str, Any], reason: str
) -> None:
    door.provider.in_token = in_token
    assert await door.refused() == reason
    assert await db.fetch("SELECT 1 FROM users") == []


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
async def test_only_the_providers_key_proves_anything(door: Door, algorithm: str) -> None:
    door.provider.algorithm = algorithm
    assert await door.refused() == "its algorithm is not allowed"


async def test_a_new_key_is_found(door: Door) -> None:
    user = await door.sign_in()
    door.provider.rotate_key()
    assert (await door.sign_in()).id == user.id


@pytest.mark.parametrize(("metadata", "iss"), [({}, "https://evil.example"), ({"sends": 1}, None)])
async def test_an_answer_of_another_issuer_is_refused(
    door: Door, metadata: dict[str, Any], iss: str | None
) -> None:
    if metadata:
        door.provider.metadata = {"authorization_response_iss_parameter_supported": True}
    door.provider.iss = iss
    assert await door.refused() == "mixed_up"
    assert door.provider.forms == []


async def test_an_answer_works_once(door: Door) -> None:
    begun = await door.service.begin("")
    answer = await door.away(begun)
    await door.finish(begun, answer)
    with pytest.raises(SignInFailed) as caught:
        await door.finish(begun, answer)
    assert caught.value.reason == "state"
    assert len(door.provider.forms) == 1


@pytest.mark.parametrize("cookie", ["", "stolen"])
async def test_an_answer_works_in_its_browser_alone(door: Door, cookie: str) -> None:
    begun = await door.service.begin("")
    answer = await door.away(begun)
    with pytest.raises(SignInFailed) as caught:
        await door.finish(begun, answer, cookie=cookie)
    assert caught.value.reason == "state"
    assert door.provider.forms == []
    await door.finish(begun, answer)  # who it belongs to is not disturbed


async def test_a_code_of_another_sign_in_is_refused(door: Door) -> None:
    ours, theirs = await door.service.begin(""), await door.service.begin("")
    answer, stolen = await door.away(ours), await door.away(theirs)
    with pytest.raises(SignInFailed) as caught:
        await door.finish(ours, replace(answer, code=stolen.code))
    assert caught.value.reason == "invalid_grant"


async def test_a_provider_that_is_configured_anew_ends_what_was_begun(door: Door) -> None:
    begun = await door.service.begin("")
    answer = await door.away(begun)
    other = door.with_(client=replace(door.login.client, client_id="other"))
    with pytest.raises(SignInFailed) as caught:
        await other.finish(begun, answer)
    assert caught.value.reason == "configured_anew"


async def test_a_provider_that_is_away_is_said_to_be(door: Door) -> None:
    away = door.with_(issuer="http://127.0.0.1:9")
    assert await away.refused() == "discovery"


# --- sessions and tokens


async def test_a_login_ends_the_session_that_the_browser_had(door: Door, db: Database) -> None:
    begun = await door.service.begin("")
    first = await door.finish(begun, await door.away(begun))
    begun = await door.service.begin("")
    second = await door.finish(begun, await door.away(begun), former=first.session.token)
    assert await authenticate_session(db, first.session.token) is None
    assert await authenticate_session(db, second.session.token) is not None


async def test_a_login_ends_the_session_with_which_a_thief_went_on(
    door: Door, db: Database
) -> None:
    begun = await door.service.begin("")
    first = await door.finish(begun, await door.away(begun))
    await db.fetch("UPDATE sessions SET rotated_at = rotated_at - interval '16 minutes'")
    thiefs = await rotate_session(db, first.session.id, first.session.token)
    assert thiefs is not None
    assert await authenticate_session(db, thiefs) is not None
    await db.fetch("UPDATE sessions SET seen_at = seen_at - interval '2 minutes'")
    assert await door.service.end_reused(first.session.token, "") is None
    begun = await door.service.begin("")
    await door.finish(begun, await door.away(begun), former=first.session.token)
    assert await authenticate_session(db, thiefs) is None


async def test_offline_access_is_asked_for_where_it_is_known(door: Door) -> None:
    asking = door.with_(scopes="openid email offline_access")
    await asking.sign_in()
    door.provider.metadata = {"scopes_supported": ["openid"]}
    await door.with_(scopes="openid email offline_access").sign_in()
    scopes = [asked["scope"] for asked in door.provider.asked]
    assert scopes == ["openid email offline_access", "openid email"]


async def test_a_refresh_token_that_is_not_given_again_is_kept(door: Door) -> None:
    user = await door.sign_in()
    before = await door.token_of(user)
    door.provider.gives_refresh = False
    await door.sign_in()
    after = await door.token_of(user)
    assert after.id != before.id
    assert after.access_token != before.access_token
    assert after.refresh_token == before.refresh_token is not None


async def test_servers_get_the_login_token_renewed_ten_minutes_ahead(
    door: Door, db: Database
) -> None:
    door.provider.lifetime_s = 7200
    user = await door.sign_in()
    server_id = await make_server(db, auth_type="user_oidc")
    service = TokenService(db, KEYS, door.outbound, login=door.login.client)
    server = await load_server(db, KEYS, server_id, user.id)
    principal = visitor(server, user.id)
    sent = (await service.bearer(server, principal)).header.get_secret_value()
    assert sent == f"Bearer {door.provider.access[0]}"
    await db.fetch("UPDATE oauth_tokens SET expires_at = clock_timestamp() + interval '5 minutes'")
    await service.bearer(server, principal)
    await service.close()
    assert len(door.provider.access) == 2
    token = await door.token_of(user)
    assert (token.generation, token.access_token.get_secret_value()) == (
        2,
        door.provider.access[1],
    )


async def test_signing_out_ends_the_session_and_keeps_the_token(door: Door, db: Database) -> None:
    user = await door.sign_in()
    (row,) = await db.fetch("SELECT id FROM sessions")
    async with db.transaction() as session:
        assert await end_session(session, row["id"])
    assert (await door.token_of(user)).needs_reauth is None
