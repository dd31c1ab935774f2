"""The OpenID provider: where it is, what it hands out for a code, and who that is."""

import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import httpx2
from pydantic import SecretStr

from chatd import logs
from chatd.core.logins import Login, lacks
from chatd.core.oauth import Grant, Issuer
from chatd.oauth import tokens
from chatd.oauth.attempts import DiscoveryFailed
from chatd.oauth.discovery import read_issuer
from chatd.oauth.errors import BadIdentity, Refused, Unreachable
from chatd.oauth.identity import REFETCH_S, Jwks, verify_id_token
from chatd.oauth.userinfo import read_userinfo
from chatd.outbound import Outbound
from chatd.signing_in.flow import Pending, SignInFailed

FRESH_S = 3600.0
AGAIN_S = 60.0
MAX_HINT = 4096
"""Longer ID tokens make URLs that servers refuse; without one the user is asked."""
_AWAY = "The sign-in service cannot be reached. Try again later."
_FAILED = "The sign-in could not be completed. Start again; if that fails too, ask your operator."

log = logs.get("login")


class Provider:
    """Its metadata is read again every hour; what was read last is used while it is away."""

    def __init__(self, outbound: Outbound, login: Login, *, refetch_s: float = REFETCH_S) -> None:
        self._outbound = outbound
        self._login = login
        self._refetch_s = refetch_s
        self._issuer: Issuer | None = None
        self._read_at = 0.0
        self._keys: tuple[str, Jwks] | None = None

    async def issuer(self) -> Issuer:
        """Raises `SignInFailed`."""
        if self._issuer is not None and time.monotonic() - self._read_at < FRESH_S:
            return self._issuer
        reason = "no connection"
        try:
            http = await self._outbound.discovery_client(self._login.issuer)
            self._issuer = await read_issuer(http, self._login.issuer, requires_pkce=False)
            self._read_at = time.monotonic()
        except DiscoveryFailed as error:
            reason = "; ".join(f"{attempt.url}: {attempt.found}" for attempt in error.attempts)
            log.warning("the provider cannot be read", reason=reason)
        except (httpx2.HTTPError, httpx2.InvalidURL):
            log.warning("the provider cannot be read", reason=reason)
        else:
            return self._issuer
        self._read_at = time.monotonic() - FRESH_S + AGAIN_S
        if self._issuer is None:
            raise SignInFailed(_AWAY, page_status=502, reason="discovery")
        return self._issuer

    async def identified(self, pending: Pending, code: str) -> tuple[Grant, Mapping[str, Any]]:
        """What the code is worth, and the claims of whoever signed in. Raises `SignInFailed`."""
        issuer = await self.issuer()
        try:
            http = await self._outbound.discovery_client(self._login.issuer)
            grant = await self._redeemed(http, issuer, pending, code)
            return grant, await self._claims(http, issuer, pending, grant)
        except Refused as error:
            reason = error.error
        except Unreachable as error:
            reason = error.reason
        except BadIdentity as error:
            reason = error.reason
        except (httpx2.HTTPError, httpx2.InvalidURL):
            reason = "no connection"
        raise SignInFailed(_FAILED, page_status=502, reason=reason)

    async def logout_url(self, id_token: SecretStr | None) -> str:
        """Where a browser also signs out of the provider; empty when that is nowhere (OpenID
        Connect RP-Initiated Logout 1.0). With the login's ID token it need not ask the user."""
        try:
            issuer = await self.issuer()
        except SignInFailed:
            return ""
        parts = urlsplit(issuer.end_session_endpoint)
        if not parts.netloc:
            return ""
        hint = id_token.get_secret_value() if id_token is not None else ""
        ours = {
            "client_id": self._login.client.client_id,
            "id_token_hint": hint if len(hint) <= MAX_HINT else "",
            "post_logout_redirect_uri": self._login.post_logout_redirect_uri,
        }
        own = [pair for pair in parse_qsl(parts.query) if pair[0] not in ours]
        query = urlencode([*own, *((name, value) for name, value in ours.items() if value)])
        return urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))

    async def _redeemed(
        self, http: httpx2.AsyncClient, issuer: Issuer, pending: Pending, code: str
    ) -> Grant:
        return await tokens.redeem(
            http,
            issuer.token_endpoint,
            self._login.client,
            code=code,
            verifier=pending.verifier,
            redirect_uri=pending.redirect_uri,
            resource="",
            issuer=issuer.issuer,
        )

    async def _claims(
        self, http: httpx2.AsyncClient, issuer: Issuer, pending: Pending, grant: Grant
    ) -> Mapping[str, Any]:
        if grant.id_token is None or not issuer.jwks_uri:
            raise BadIdentity("there is none, or no key to check it with")
        claims = await verify_id_token(
            self._jwks(http, issuer.jwks_uri),
            issuer,
            self._login.client,
            grant.id_token,
            nonce=pending.nonce,
        )
        if not lacks(claims, self._login.rules) or not issuer.userinfo_endpoint:
            return claims
        more = await read_userinfo(
            http, issuer.userinfo_endpoint, grant.access_token, subject=claims["sub"]
        )
        return {**more, **claims}

    def _jwks(self, http: httpx2.AsyncClient, url: str) -> Jwks:
        if self._keys is None or self._keys[0] != url:
            self._keys = (url, Jwks(http, url, refetch_s=self._refetch_s))
        return self._keys[1]
