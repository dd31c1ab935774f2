"""Taking tokens back: what is asked, and what is reported."""

from collections.abc import AsyncGenerator

import jwt
import pytest
from pydantic import SecretStr

from chatd.core.oauth import Client
from chatd.oauth.revocation import revoke
from tests.oauth.issuing import PUBLIC, Issuing, Say, issuing, json, raw, silence, text
from tests.oauth.test_tokens import KEY, PEM

TOKEN = "canary-token"
SECRET = "canary-secret"


@pytest.fixture
async def peer() -> AsyncGenerator[Issuing]:
    async with issuing() as peer:
        yield peer


async def revoked(
    peer: Issuing, client: Client = PUBLIC, *, issuer: str = "", within_s: float = 5.0
) -> str:
    return await revoke(
        peer.http,
        f"{peer.url}/revoke",
        client,
        SecretStr(TOKEN),
        "refresh_token",
        issuer=issuer,
        within_s=within_s,
    )


@pytest.mark.parametrize(
    "say", [text(b""), text(b"<p>bye</p>"), json({}), text(b"", status=204), json({"ok": True})]
)
async def test_any_success_is_one(peer: Issuing, say: Say) -> None:
    peer.says(say)
    assert await revoked(peer) == ""
    assert peer.form == {
        "client_id": "chatd",
        "token": TOKEN,
        "token_type_hint": "refresh_token",
    }


@pytest.mark.parametrize(
    ("say", "reason"),
    [
        (json({"error": "unsupported_token_type"}, status=400), "unsupported_token_type"),
        (json({"error": "invalid_client"}, status=401), "invalid_client"),
        (json({"error": "bad_token"}), "bad_token"),
        (json({"error": TOKEN}, status=400), "unnamed"),
        (json({"error": f"x-{SECRET}"}, status=400), "unnamed"),
        (text(TOKEN.encode(), status=404), "HTTP 404 without an error code"),
        (json({"error": "no"}, status=429), "HTTP 429"),
        (text(b"", status=503), "HTTP 503"),
        (raw(TOKEN.encode() + b"\r\n\r\n"), "its answer was cut off, too large or not HTTP"),
    ],
)
async def test_what_went_wrong_is_reported_in_a_few_words(
    peer: Issuing, say: Say, reason: str
) -> None:
    peer.says(say)
    client = Client("chatd", "client_secret_post", SecretStr(SECRET))
    assert await revoked(peer, client) == reason


async def test_a_redirect_does_not_take_the_token_along(peer: Issuing) -> None:
    peer.says(json({}, status=307, headers=f"location: {peer.url}/other\r\n"))
    assert await revoked(peer) == "HTTP 307, a redirect, which is not followed"
    assert [heard.path for heard in peer.heard] == ["/revoke"]


async def test_a_server_that_hangs_holds_nobody_up(peer: Issuing) -> None:
    peer.says(silence)
    assert await revoked(peer, within_s=0.05) == "no answer in time"


async def test_a_server_that_cannot_revoke_is_not_asked(peer: Issuing) -> None:
    reason = await revoke(peer.http, "", PUBLIC, SecretStr(TOKEN), "access_token")
    assert (reason, peer.heard) == ("it has no revocation endpoint", [])


async def test_a_client_without_its_secret_does_not_ask(peer: Issuing) -> None:
    reason = await revoked(peer, Client("chatd", "client_secret_basic"))
    assert (reason, peer.heard) == ("client_secret_missing", [])


async def test_the_client_proves_itself_as_at_the_token_endpoint(peer: Issuing) -> None:
    signer = Client("chatd", "private_key_jwt", SecretStr(PEM))
    await revoked(peer, signer, issuer=peer.url)
    assertion = peer.form["client_assertion"]
    jwt.decode(assertion, KEY.public_key(), algorithms=["ES256"], audience=peer.url)
