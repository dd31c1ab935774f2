"""The token of a user's login: as it is, or exchanged for one that a server understands."""

from dataclasses import replace

import httpx2

from chatd.core.oauth import Client, Grant, ReauthReason, StoredToken
from chatd.core.servers import McpAuth, McpServer, Principal, UserAuth
from chatd.credentials.failures import NotConnected, NoToken
from chatd.credentials.source import Kit, Source, refreshed, stored
from chatd.oauth import tokens as endpoint
from chatd.oauth.errors import Refused
from chatd.store.oauth_tokens import read_token, read_token_of

AHEAD_S = 600.0

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Login(Source):
    """The token of the user's login, as it is. Never in the clear, except within this machine."""

    ahead_s = AHEAD_S
    of_user = True

    @staticmethod
    def serves(auth: McpAuth) -> bool:
        return isinstance(auth, UserAuth) and auth.type == "user_oidc" and not auth.audience

    async def find(self, server: McpServer, principal: Principal) -> StoredToken | None:
        if principal.connection_id is None:
            return None
        token = await read_token(self._kit.db, self._kit.keys, principal.connection_id)
        if token is None or (token.server_id, token.user_id) != (None, principal.user_id):
            return None
        return token

    async def ask(self, server_url: str, token: StoredToken) -> Grant:
        client = _login_client(self._kit, token)
        http = await self._kit.http(token.issuer or token.token_url)
        return await refreshed(http, token.token_url, client, token)

    def carries(self, url: str) -> bool:
        return _unheard(url)


class Exchanged(Source):
    """What the login's token is exchanged for, for one server's audience (RFC 8693)."""

    @staticmethod
    def serves(auth: McpAuth) -> bool:
        return isinstance(auth, UserAuth) and auth.type == "user_oidc" and bool(auth.audience)

    async def find(self, server: McpServer, principal: Principal) -> StoredToken | None:
        login = await self._login(server, principal)
        token = await read_token_of(
            self._kit.db, self._kit.keys, server_id=server.id, user_id=principal.user_id
        )
        if token is None or (token.issuer, token.resource) != (login.issuer, _audience(server)):
            return None
        return token

    async def first(self, server: McpServer, principal: Principal) -> StoredToken:
        login = await self._login(server, principal)
        grant = await self._exchanged(login, _audience(server))
        return await stored(
            self._kit,
            grant,
            server_id=server.id,
            user_id=principal.user_id,
            issuer=login.issuer,
            client_id=login.client_id,
            token_url=login.token_url,
            resource=_audience(server),
        )

    async def ask(self, server_url: str, token: StoredToken) -> Grant:
        login = await read_token_of(
            self._kit.db, self._kit.keys, server_id=None, user_id=token.user_id
        )
        if login is None:
            raise NotConnected("not_connected")
        return await self._exchanged(login, token.resource)

    def renewable(self, token: StoredToken) -> bool:
        return True

    async def lost(self, token: StoredToken, refused: Refused) -> ReauthReason | None:
        return None

    def carries(self, url: str) -> bool:
        return _unheard(url)

    async def _login(self, server: McpServer, principal: Principal) -> StoredToken:
        return await self._usable(Login(self._kit, self._usable), server, principal)

    async def _exchanged(self, login: StoredToken, audience: str) -> Grant:
        http = await self._kit.http(login.issuer or login.token_url)
        grant = await endpoint.exchange(
            http,
            login.token_url,
            _login_client(self._kit, login),
            subject_token=login.access_token,
            audience=audience,
            resource="",
            scopes="",
            issuer=login.issuer,
        )
        return replace(grant, refresh_token=None)


def _login_client(kit: Kit, token: StoredToken) -> Client:
    """As whom the login was granted: another client cannot renew it."""
    if kit.login is None or kit.login.client_id != token.client_id:
        raise NoToken("the login's client is not configured")
    return kit.login


def _audience(server: McpServer) -> str:
    return server.auth.audience if isinstance(server.auth, UserAuth) else ""


def _unheard(url: str) -> bool:
    parsed = httpx2.URL(url)
    return parsed.scheme == "https" or parsed.host in _LOOPBACK
