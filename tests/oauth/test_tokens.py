"""The token endpoint: what it hears, and what becomes of everything it may answer."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from itertools import product
from typing import Any
from urllib.parse import parse_qsl

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr

from chatd.core.oauth import AuthMethod, Client, Grant
from chatd.oauth.client_auth import METHODS
from chatd.oauth.errors import Refused, Unreachable
from chatd.oauth.tokens import (
    MAX_LIFETIME_S,
    client_credentials,
    exchange,
    redeem,
    refresh,
)
from chatd.outbound import Outbound
from tests.oauth.issuing import (
    GRANTED,
    PUBLIC,
    TOKEN,
    Issuing,
    Say,
    everything_told,
    issuing,
    json,
    raw,
    silence,
    text,
)
from tests.outbound.raw_server import Exchange

REFRESH = "canary-refresh-token"
CODE = "canary-code"
VERIFIER = "canary-verifier-canary-verifier-canary-verifier"
SUBJECT = "canary-subject-token"
SECRET = "canary-client-secret"
RESOURCE = "https://mcp.example/mcp"
CANARIES = (REFRESH, CODE, VERIFIER, SUBJECT, SECRET, TOKEN)

KEY = ec.generate_private_key(ec.SECP256R1())
PEM = KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()


@pytest.fixture
async def peer() -> AsyncGenerator[Issuing]:
    async with issuing() as peer:
        yield peer


async def refreshed(peer: Issuing, client: Client = PUBLIC, within_s: float = 5.0) -> Grant:
    return await refresh(
        peer.http,
        peer.token_url,
        client,
        refresh_token=SecretStr(REFRESH),
        resource=RESOURCE,
        within_s=within_s,
    )


async def redeemed(peer: Issuing, client: Client = PUBLIC, within_s: float = 5.0) -> Grant:
    return await redeem(
        peer.http,
        peer.token_url,
        client,
        code=CODE,
        verifier=VERIFIER,
        redirect_uri="https://chatd.example/callback",
        resource=RESOURCE,
        within_s=within_s,
    )


async def exchanged(peer: Issuing, client: Client = PUBLIC, within_s: float = 5.0) -> Grant:
    return await exchange(
        peer.http,
        peer.token_url,
        client,
        subject_token=SecretStr(SUBJECT),
        audience="api://mcp",
        resource=RESOURCE,
        scopes="read",
        within_s=within_s,
    )


async def serviced(peer: Issuing, client: Client = PUBLIC, within_s: float = 5.0) -> Grant:
    return await client_credentials(
        peer.http,
        peer.token_url,
        client,
        scopes="read write",
        resource=RESOURCE,
        within_s=within_s,
    )


Ask = Callable[[Issuing, Client, float], Awaitable[Grant]]
ASKS: tuple[Ask, ...] = (refreshed, redeemed, exchanged, serviced)


# What is refused


@pytest.mark.parametrize(
    ("status", "answer", "error", "permanent", "client"),
    [
        (400, {"error": "invalid_grant"}, "invalid_grant", True, False),
        (401, {"error": "invalid_grant"}, "invalid_grant", True, False),
        (200, {"error": "bad_refresh_token"}, "bad_refresh_token", True, False),
        (
            200,
            {"ok": False, "error": "invalid_refresh_token"},
            "invalid_refresh_token",
            True,
            False,
        ),
        (400, {"error": "interaction_required"}, "interaction_required", True, False),
        (200, {"ok": False, "error": "bad_client_secret"}, "bad_client_secret", False, True),
        (200, {"error": "invalid_grant", **GRANTED}, "invalid_grant", True, False),
        (401, {"error": "invalid_client"}, "invalid_client", False, True),
        (400, {"error": "invalid_client"}, "invalid_client", False, True),
        (
            200,
            {"error": "incorrect_client_credentials"},
            "incorrect_client_credentials",
            False,
            True,
        ),
        (400, {"error": "invalid_scope"}, "invalid_scope", False, False),
        (400, {"error": "invalid_target"}, "invalid_target", False, False),
        (400, {"error": "unauthorized_client"}, "unauthorized_client", False, False),
        (403, {"error": "org.policy-7"}, "org.policy-7", False, False),
        (400, {"error": "Invalid_Grant"}, "Invalid_Grant", False, False),
        (400, {"error": "sorry, <b>no</b>\n"}, "unnamed", False, False),
        (400, {"error": "x" * 65}, "unnamed", False, False),
    ],
)
async def test_only_a_lost_grant_is_permanent_and_only_the_code_is_kept(
    peer: Issuing,
    status: int,
    answer: dict[str, Any],
    error: str,
    permanent: bool,
    client: bool,
) -> None:
    peer.says(json({**answer, "error_description": "sorry"}, status=status))
    for ask in ASKS:
        with pytest.raises(Refused) as refused:
            await ask(peer, PUBLIC, 5.0)
        said = refused.value
        assert (said.error, said.permanent, said.client) == (error, permanent, client)
        assert "sorry" not in everything_told(said)


# What keeps everything

SENT_ON = "http://127.0.0.1:9/elsewhere"

UNUSABLE: Mapping[str, tuple[Say, str]] = {
    "429": (json({"error": "invalid_grant"}, status=429), "HTTP 429"),
    "500 with an OAuth error": (json({"error": "invalid_grant"}, status=500), "HTTP 500"),
    "503 with HTML": (text(b"<h1>down</h1>", status=503), "HTTP 503"),
    "says it is down": (json({"error": "temporarily_unavailable"}, status=400), "temporarily_"),
    "HTML": (text(b"<html>login</html>"), "HTTP 200 without JSON"),
    "nothing": (text(b""), "HTTP 200 without JSON"),
    "a list": (json([GRANTED]), "HTTP 200 without JSON"),
    "deep": (text(b"[" * 100_000), "HTTP 200 without JSON"),
    "form encoding": (text(f"access_token={TOKEN}".encode()), "HTTP 200 without JSON"),
    "404 with JSON": (json({"message": "no"}, status=404), "HTTP 404 without an error code"),
    "403 with HTML": (text(b"<h1>not here</h1>", status=403), "HTTP 403 without JSON"),
    "300 KiB": (json({**GRANTED, "x": "x" * 300 * 1024}), "too large"),
    "300 KiB as an event stream": (
        text(b"x" * 300 * 1024, kind="text/event-stream"),
        "larger than 262144",
    ),
    "compressed": (json(GRANTED, headers="content-encoding: gzip\r\n"), "not HTTP"),
    "cut off": (raw(b'HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{"access_'), "cut off"),
    "no HTTP": (raw(b"SSH-2.0-canary-refresh-token\r\n"), "not HTTP"),
    "hangs up": (raw(b""), "cut off"),
    "no token": (json({"token_type": "Bearer"}), "no access token"),
    "a token that is a number": (json({**GRANTED, "access_token": 7}), "no access token"),
    "an empty token": (json({**GRANTED, "access_token": ""}), "no access token"),
    "a token with a line break": (json({**GRANTED, "access_token": "a\r\nb"}), "header"),
    "a token beyond ASCII": (json({**GRANTED, "access_token": "é"}), "header"),
}


@pytest.mark.parametrize("shape", UNUSABLE)
async def test_an_answer_of_no_use_says_why_and_blames_nobody(peer: Issuing, shape: str) -> None:
    say, why = UNUSABLE[shape]
    peer.says(say)
    with pytest.raises(Unreachable) as failed:
        await refreshed(peer)
    assert why in failed.value.reason
    assert len(peer.heard) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed_whatever_the_client_was_told(
    peer: Issuing, status: int
) -> None:
    peer.says(json({}, status=status, headers=f"location: {peer.url}/elsewhere\r\n"))
    peer.http.follow_redirects = True
    with pytest.raises(Unreachable, match=f"HTTP {status}, a redirect, which is not followed"):
        await refreshed(peer)
    assert [heard.path for heard in peer.heard] == ["/token"]


async def test_a_server_that_hangs_is_left_after_the_time_for_all_of_it(peer: Issuing) -> None:
    peer.says(silence)
    with pytest.raises(Unreachable, match="no answer in time"):
        await refreshed(peer, within_s=0.05)


async def test_a_server_that_stops_in_mid_answer_is_left_as_well(peer: Issuing) -> None:
    async def falter(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{")
        await silence(exchange)

    peer.says(falter)
    with pytest.raises(Unreachable, match="no answer in time"):
        await refreshed(peer, within_s=0.05)


async def test_nobody_there_is_no_refusal() -> None:
    async with issuing() as gone:
        url = gone.token_url
    async with issuing() as peer:
        with pytest.raises(Unreachable, match="no connection"):
            await refresh(
                peer.http, url, PUBLIC, refresh_token=SecretStr(REFRESH), resource=RESOURCE
            )


@pytest.mark.parametrize(
    "token_url",
    ["", "token", "ftp://login.example/token", "http://[", "http://u:p@127.0.0.1/", "http://a b/"],
)
async def test_a_url_that_cannot_be_asked_is_no_crash(peer: Issuing, token_url: str) -> None:
    with pytest.raises(Unreachable) as failed:
        await refresh(
            peer.http, token_url, PUBLIC, refresh_token=SecretStr(REFRESH), resource=RESOURCE
        )
    assert "u:p" not in everything_told(failed.value)


async def test_an_address_our_rules_close_is_named_as_such(peer: Issuing) -> None:
    outbound = Outbound()
    http = await outbound.discovery_client(peer.url)
    with pytest.raises(Unreachable, match=r"refused: host '127\.0\.0\.1' has a loopback address"):
        await refresh(
            http, peer.token_url, PUBLIC, refresh_token=SecretStr(REFRESH), resource=RESOURCE
        )
    await outbound.aclose()
    assert peer.heard == []


async def test_who_is_cancelled_is_not_answered_with_an_error_of_ours(peer: Issuing) -> None:
    arrived = asyncio.Event()

    async def hold(exchange: Exchange) -> None:
        arrived.set()
        await silence(exchange)

    peer.says(hold)
    asking = asyncio.create_task(refreshed(peer))
    await arrived.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


# Canaries


def client(method: AuthMethod, secret: str = SECRET) -> Client:
    hidden = None if method == "none" else SecretStr(secret)
    return Client(client_id="chatd", auth_method=method, secret=hidden)


def parrot(status: int, field: str = "") -> Say:
    """Repeats all it heard, and that field where an error code belongs."""

    async def say(exchange: Exchange) -> None:
        heard = exchange.body.decode()
        sent = dict(parse_qsl(heard))
        if "authorization" in exchange.headers:
            sent["client_secret"] = SECRET
            sent["authorization"] = exchange.headers["authorization"].split()[1].rstrip("=")
        code = sent.get(field, "invalid_request")
        await json({"error": code, "error_description": heard}, status=status)(exchange)

    return say


HOSTILE: Mapping[str, Say] = {
    **{
        f"repeats {field} as an error code": parrot(400, field)
        for field in ("code", "code_verifier", "refresh_token", "subject_token")
    },
    "repeats a secret with HTTP 200": parrot(200, "client_secret"),
    "repeats a header": parrot(400, "authorization"),
    "repeats an assertion": parrot(400, "client_assertion"),
    "repeats it with HTTP 500": parrot(500),
    "is cut off": raw(f"HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n{REFRESH}".encode()),
    "is not HTTP": raw(f"{REFRESH}{SECRET}\r\n\r\n".encode()),
    "is HTTP but for a header": raw(f"HTTP/1.1 200 OK\r\n{REFRESH}{SECRET}\r\n\r\n".encode()),
    "hangs": silence,
    "sends elsewhere": json({}, status=302, headers=f"location: https://x.example/?{CODE}\r\n"),
}


@pytest.mark.parametrize("shape", HOSTILE)
async def test_no_secret_is_in_what_is_raised(peer: Issuing, shape: str) -> None:
    peer.says(HOSTILE[shape])
    for ask, method in product(ASKS, METHODS):
        secret = PEM if method == "private_key_jwt" else SECRET
        with pytest.raises((Refused, Unreachable)) as failed:
            await ask(peer, client(method, secret), 0.03 if shape == "hangs" else 5.0)
        assertion = peer.heard[-1].form.get("client_assertion", "no assertion")
        header = peer.heard[-1].headers.get("authorization", "no Basic").split()[1].rstrip("=")
        told = everything_told(failed.value)
        secrets = (*CANARIES, assertion, header, *PEM.splitlines())
        found = [each for each in secrets if each in told]
        assert (ask, method, found) == (ask, method, [])
        assert failed.value.__context__ is None


async def test_a_grant_does_not_show_its_tokens_by_accident(peer: Issuing) -> None:
    peer.says(json({**GRANTED, "refresh_token": REFRESH, "id_token": SUBJECT}))
    assert not [each for each in CANARIES if each in repr(await refreshed(peer))]


# What is asked


async def test_a_code_is_redeemed_with_its_verifier(peer: Issuing) -> None:
    await redeemed(peer)
    assert peer.form == {
        "grant_type": "authorization_code",
        "client_id": "chatd",
        "code": CODE,
        "code_verifier": VERIFIER,
        "redirect_uri": "https://chatd.example/callback",
        "resource": RESOURCE,
    }


async def test_a_refresh_asks_for_scopes_only_when_told_to(peer: Issuing) -> None:
    await refreshed(peer)
    assert peer.form == {
        "grant_type": "refresh_token",
        "client_id": "chatd",
        "refresh_token": REFRESH,
        "resource": RESOURCE,
    }


async def test_a_service_asks_in_its_own_name(peer: Issuing) -> None:
    await serviced(peer)
    assert peer.form == {
        "grant_type": "client_credentials",
        "client_id": "chatd",
        "scope": "read write",
        "resource": RESOURCE,
    }


async def test_an_exchange_names_what_it_gives_and_for_whom_it_asks(peer: Issuing) -> None:
    await exchanged(peer)
    access_token = "urn:ietf:params:oauth:token-type:access_token"
    assert peer.form == {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "client_id": "chatd",
        "subject_token": SUBJECT,
        "subject_token_type": access_token,
        "requested_token_type": access_token,
        "audience": "api://mcp",
        "scope": "read",
        "resource": RESOURCE,
    }


async def test_json_is_asked_for_and_no_compression(peer: Issuing) -> None:
    await refreshed(peer)
    headers = peer.heard[0].headers
    assert (headers["accept"], headers["accept-encoding"]) == ("application/json", "identity")


async def test_an_empty_resource_is_not_sent(peer: Issuing) -> None:
    await refresh(peer.http, peer.token_url, PUBLIC, refresh_token=SecretStr(REFRESH), resource="")
    assert "resource" not in peer.form


async def test_a_secret_goes_into_the_header_alone_or_the_form_alone(peer: Issuing) -> None:
    await refreshed(peer, client("client_secret_basic"))
    await refreshed(peer, client("client_secret_post"))
    basic, post = peer.heard
    expected = b64encode(f"chatd:{SECRET}".encode()).decode()
    assert basic.headers["authorization"] == f"Basic {expected}"
    assert not {"client_id", "client_secret"} & basic.form.keys()
    assert "authorization" not in post.headers
    assert post.form["client_secret"] == SECRET


@pytest.mark.parametrize("issuer", ["", "https://login.example"])
async def test_an_assertion_is_for_the_issuer_or_else_the_endpoint(
    peer: Issuing, issuer: str
) -> None:
    await client_credentials(
        peer.http,
        peer.token_url,
        client("private_key_jwt", PEM),
        scopes="",
        resource=RESOURCE,
        issuer=issuer,
    )
    assertion = peer.form["client_assertion"]
    audience = issuer or peer.token_url
    claims = jwt.decode(assertion, KEY.public_key(), algorithms=["ES256"], audience=audience)
    assert claims["aud"] == audience


async def test_the_clients_own_auth_stays_out(peer: Issuing) -> None:
    peer.http.auth = httpx2.BasicAuth("somebody", "else")
    await refreshed(peer)
    assert "authorization" not in peer.heard[0].headers


# What is granted


async def granted(peer: Issuing, **changed: Any) -> Grant:
    members = {**GRANTED, **changed}
    peer.says(json({name: value for name, value in members.items() if value is not ...}))
    return await refreshed(peer)


async def test_all_of_a_grant_arrives(peer: Issuing) -> None:
    grant = await granted(peer, refresh_token="r", scope="read", id_token="i")
    assert grant == Grant(
        SecretStr(TOKEN), "Bearer", 3600.0, SecretStr("r"), "read", SecretStr("i")
    )


async def test_201_and_another_content_type_are_good_enough(peer: Issuing) -> None:
    peer.says(text(b'{"access_token": "a"}', status=201, kind="text/plain"))
    assert await refreshed(peer) == Grant(SecretStr("a"))


async def test_every_spelling_of_bearer_is_bearer_and_so_is_silence(peer: Issuing) -> None:
    for said in ("Bearer", "bearer", "BEARER", "", None, ...):
        assert (await granted(peer, token_type=said)).token_type == "Bearer"


async def test_slacks_word_for_whose_token_it_is_is_bearer_too(peer: Issuing) -> None:
    for said in ("bot", "user"):
        assert (await granted(peer, token_type=said)).token_type == "Bearer"


async def test_slacks_token_of_a_user_alone_is_found(peer: Issuing) -> None:
    user = {**GRANTED, "id": "U1", "token_type": "user", "refresh_token": "r", "scope": "a,b"}
    peer.says(json({"ok": True, "authed_user": user}))
    assert await refreshed(peer) == Grant(
        SecretStr(TOKEN), "Bearer", 3600.0, SecretStr("r"), "a,b", None
    )


async def test_a_bots_token_is_not_passed_over_for_its_users(peer: Issuing) -> None:
    grant = await granted(peer, authed_user={"access_token": "the-users"})
    assert grant.access_token.get_secret_value() == TOKEN


async def test_a_type_that_only_the_server_knows_is_kept_for_the_header(peer: Issuing) -> None:
    assert (await granted(peer, token_type="Zoho-oauthtoken")).token_type == "Zoho-oauthtoken"


async def test_a_token_that_cannot_go_into_a_header_alone_is_refused(peer: Issuing) -> None:
    for said in ("mac", "DPoP", "N_A", "Bearer\r\nx: y", "a b", "x" * 41, 7, ["Bearer"]):
        with pytest.raises(Refused, match="unsupported_token_type") as refused:
            await granted(peer, token_type=said)
        assert (refused.value.permanent, refused.value.client) == (False, False)


LIFETIMES: tuple[tuple[Any, float | None], ...] = (
    (3600, 3600.0),
    ("3600", 3600.0),
    (3600.5, 3600.5),
    ("3600.5", 3600.5),
    (0, None),
    ("0", None),
    (-1, None),
    (None, None),
    (..., None),
    (True, None),
    ("soon", None),
    ("nan", None),
    ("", None),
    ([3600], None),
    (10**18, MAX_LIFETIME_S),
    (1e300, MAX_LIFETIME_S),
    ("9" * 400, MAX_LIFETIME_S),
    ("inf", MAX_LIFETIME_S),
)


async def test_a_lifetime_is_a_number_above_zero_or_not_known(peer: Issuing) -> None:
    found = [(said, (await granted(peer, expires_in=said)).expires_in_s) for said, _ in LIFETIMES]
    assert tuple(found) == LIFETIMES


async def test_an_empty_refresh_token_is_none(peer: Issuing) -> None:
    for said in ("", None, ..., 7, {}):
        grant = await granted(peer, refresh_token=said, id_token=said)
        assert (grant.refresh_token, grant.id_token) == (None, None)


SCOPES: tuple[tuple[Any, str | None], ...] = (
    (..., None),
    (None, None),
    (7, None),
    ("", ""),
    ("read write", "read write"),
    (["read", "write", 7], "read write"),
    ("read\0 write wr\0te \ud7ff", "write"),
)


async def test_a_scope_that_is_not_told_is_as_asked(peer: Issuing) -> None:
    found = [(said, (await granted(peer, scope=said)).scope) for said, _ in SCOPES]
    assert tuple(found) == SCOPES


async def test_a_token_that_comes_back_as_a_scope_is_none(peer: Issuing) -> None:
    """Scopes are kept in the clear."""
    words = ["read", TOKEN, "new-refresh-token", "an-id-token", REFRESH, "write"]
    for said in (words, " ".join(words)):
        grant = await granted(
            peer, scope=said, refresh_token="new-refresh-token", id_token="an-id-token"
        )
        assert grant.scope == "read write"


@pytest.mark.parametrize("status", [400, 401])
@pytest.mark.parametrize("body", [b"<h1>no</h1>", b"", b'{"error": {"code": 1}}', b"[]"])
async def test_a_refusal_without_a_reason_may_be_for_good_or_not(
    peer: Issuing, status: int, body: bytes
) -> None:
    peer.says(text(body, status=status))
    with pytest.raises(Refused, match=f"HTTP {status} without") as refused:
        await refreshed(peer)
    assert (refused.value.permanent, refused.value.client) == (False, False)
