"""A code becomes a grant, and a grant that nobody may keep or wants any more is given back."""

import asyncio
from base64 import urlsafe_b64decode
from collections.abc import Awaitable, Callable
from uuid import UUID

import httpx2
import orjson
from pydantic import SecretStr

from chatd import logs
from chatd.connecting.flows import Pending, Stopped
from chatd.core.oauth import Client, CodeAnswer, Grant, Issuer
from chatd.oauth import tokens
from chatd.oauth.authorize import check_answer_issuer
from chatd.oauth.errors import MixedUp, Refused, Unreachable
from chatd.oauth.revocation import TokenHint, revoke
from chatd.outbound import Outbound
from chatd.store.db import Database
from chatd.store.oauth_servers import OAuthServer
from chatd.store.user_links import links_of

REVOKE_S = 5.0
"""For all that taking a token back may cost the user who waits for it."""

_UNSUPPORTED = "unsupported_token_type"
_FAILED = (
    "The sign-in could not be completed. Start again; if that fails too, ask your administrator."
)
_RENEWED = (
    "The authorization server had forgotten this site. It has been introduced again: start once"
    " more."
)

Renew = Callable[[UUID, str], Awaitable[bool]]
"""Of a server and its client id that the authorization server does not know any more: whether it
has another one now."""

log = logs.get("oauth")


def checked_code(pending: Pending, answer: CodeAnswer) -> str:
    """Whose answer it is comes before anything that it says (RFC 9207)."""
    back = pending.return_to
    issuer = Issuer(pending.issuer, "", pending.token_url, sends_issuer=pending.sends_issuer)
    try:
        check_answer_issuer(issuer, answer.iss)
    except MixedUp:
        message = "The answer came from another authorization server than the one that was asked."
        raise Stopped(message, reason="mixed_up", return_to=back) from None
    if answer.error == "access_denied":
        raise Stopped("The access was not allowed.", reason="access_denied", return_to=back)
    if answer.error or not answer.code:
        message = "The authorization server could not let you in. Try again later."
        raise Stopped(message, reason=answer.error[:64] or "no_code", return_to=back)
    return answer.code


async def redeem(
    outbound: Outbound, server: OAuthServer, pending: Pending, code: str, renew: Renew
) -> Grant:
    """Raises `Stopped`, which says nothing of what the token endpoint said but its error code."""
    try:
        http = await outbound.discovery_client(server.url)
        return await tokens.redeem(
            http,
            pending.token_url,
            server.client,
            code=code,
            verifier=pending.verifier,
            redirect_uri=pending.redirect_uri,
            resource=pending.resource,
            issuer=pending.issuer,
        )
    except Refused as error:
        reason, lost = error.error, error.client
    except Unreachable as error:
        reason, lost = error.reason, False
    except (httpx2.HTTPError, httpx2.InvalidURL):
        reason, lost = "no connection", False
    log.warning("a code was not redeemed", server=str(server.id), reason=reason)
    renewed = lost and await renew(server.id, server.client.client_id)
    message = _RENEWED if renewed else _FAILED
    raise Stopped(message, page_status=502, reason=reason, return_to=pending.return_to)


async def check_identity(db: Database, grant: Grant, issuer: str, user_id: UUID) -> bool:
    """Whether it was the user who signed in there: known where they log in here with that issuer.

    The ID token comes straight from the token endpoint, which is as good as its signature (OpenID
    Connect Core, section 3.1.3.7).
    """
    if grant.id_token is None or not issuer:
        return True
    subjects = {link.subject for link in await links_of(db, user_id) if link.issuer == issuer}
    return not subjects or subject_of(grant.id_token) in subjects


async def take_back(
    outbound: Outbound,
    server_url: str,
    endpoint: str,
    client: Client,
    access: SecretStr,
    refresh: SecretStr | None,
    *,
    issuer: str,
) -> str:
    """ "" when the authorization server agreed, else why not; within `REVOKE_S`."""
    try:
        async with asyncio.timeout(REVOKE_S):
            http = await outbound.discovery_client(server_url)

            async def ask(token: SecretStr, hint: TokenHint) -> str:
                return await revoke(http, endpoint, client, token, hint, issuer=issuer)

            said = await ask(refresh, "refresh_token") if refresh else _UNSUPPORTED
            return await ask(access, "access_token") if said == _UNSUPPORTED else said
    except TimeoutError:
        return "no answer in time"
    except (httpx2.HTTPError, httpx2.InvalidURL):
        return "no connection"


async def give_back(outbound: Outbound, server: OAuthServer, grant: Grant) -> None:
    """Of a grant that came too late."""
    said = await take_back(
        outbound,
        server.url,
        server.issuer.revocation_endpoint,
        server.client,
        grant.access_token,
        grant.refresh_token,
        issuer=server.issuer.issuer,
    )
    if said:
        log.warning("a grant was not given back", server=str(server.id), reason=said)


def subject_of(id_token: SecretStr) -> str:
    """Of an ID token that is not checked here; "" for none."""
    try:
        claims = orjson.loads(_payload(id_token.get_secret_value()))
        return str(claims["sub"])
    except (IndexError, KeyError, TypeError, ValueError):
        return ""


def _payload(token: str) -> bytes:
    payload = token.split(".")[1]
    return urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
