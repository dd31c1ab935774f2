"""The deployment's own account at a server (RFC 6749, section 4.4)."""

from dataclasses import replace
from uuid import UUID

from chatd.core.oauth import Grant, ReauthReason, StoredToken
from chatd.core.servers import McpAuth, McpServer, Principal, ServiceAuth
from chatd.credentials.failures import NoToken
from chatd.credentials.source import Kit, Source, Usable, stored
from chatd.oauth import tokens as endpoint
from chatd.oauth.errors import Refused
from chatd.oauth.resource import indicator
from chatd.store.oauth_servers import OAuthServer, read_server
from chatd.store.oauth_tokens import read_token_of

MAX_REMEMBERED = 256


class Service(Source):
    """Nobody has to connect it: what is lost is asked for anew."""

    def __init__(self, kit: Kit, usable: Usable) -> None:
        super().__init__(kit, usable)
        self._configured: dict[tuple[UUID, int], OAuthServer] = {}

    @staticmethod
    def serves(auth: McpAuth) -> bool:
        return isinstance(auth, ServiceAuth)

    async def find(self, server: McpServer, principal: Principal) -> StoredToken | None:
        token = await read_token_of(self._kit.db, self._kit.keys, server_id=server.id, user_id=None)
        if token is None:
            return None
        configured = await self._config(server)
        ours = (
            configured.client.client_id,
            configured.issuer.token_endpoint,
            _resource(configured),
            " ".join(configured.scopes),
        )
        theirs = (token.client_id, token.token_url, token.resource, token.scopes)
        return token if ours == theirs else None

    async def first(self, server: McpServer, principal: Principal) -> StoredToken:
        configured = await self._config(server)
        if not configured.client.client_id or not configured.issuer.token_endpoint:
            raise NoToken("the server's client is not configured")
        scopes = " ".join(configured.scopes)
        grant = await self._granted(configured, _resource(configured), scopes)
        return await stored(
            self._kit,
            grant,
            server_id=server.id,
            user_id=None,
            issuer=configured.issuer.issuer,
            client_id=configured.client.client_id,
            token_url=configured.issuer.token_endpoint,
            resource=_resource(configured),
            scopes=scopes,
        )

    async def ask(self, server_url: str, token: StoredToken) -> Grant:
        if token.server_id is None:
            raise NoToken("the token is of no server")
        configured = await read_server(self._kit.db, self._kit.keys, token.server_id)
        return await self._granted(configured, token.resource, token.scopes)

    def renewable(self, token: StoredToken) -> bool:
        return True

    async def lost(self, token: StoredToken, refused: Refused) -> ReauthReason | None:
        return None

    async def _granted(self, configured: OAuthServer, resource: str, scopes: str) -> Grant:
        http = await self._kit.http(configured.url)
        grant = await endpoint.client_credentials(
            http,
            configured.issuer.token_endpoint,
            configured.client,
            scopes=scopes,
            resource=resource,
            issuer=configured.issuer.issuer,
        )
        # What was asked for is what tells whether the configuration is still the same.
        return replace(grant, scope=None, refresh_token=None)

    async def _config(self, server: McpServer) -> OAuthServer:
        """A version never changes what is in it."""
        key = (server.id, server.version)
        found = self._configured.get(key)
        if found is None:
            if len(self._configured) >= MAX_REMEMBERED:
                self._configured.clear()
            found = await read_server(self._kit.db, self._kit.keys, server.id)
            self._configured[key] = found
        return found


def _resource(configured: OAuthServer) -> str:
    return indicator(configured.url, configured.resource, sent=configured.sends_resource)
