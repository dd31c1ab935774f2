"""A user's account at one server."""

from chatd.core.errors import NotFound
from chatd.core.oauth import Client, Grant, ReauthReason, StoredToken
from chatd.core.servers import McpAuth, McpServer, Principal, UserAuth
from chatd.credentials.reading import readable
from chatd.credentials.source import Source, refreshed
from chatd.oauth.errors import Refused
from chatd.store.oauth_clients import client_of
from chatd.store.oauth_servers import read_server
from chatd.store.oauth_tokens import read_token


class Connection(Source):
    """Bound to the client it was granted to, also when the server is configured with another."""

    one_server = True
    of_user = True

    @staticmethod
    def serves(auth: McpAuth) -> bool:
        return isinstance(auth, UserAuth) and auth.type == "oauth2"

    async def find(self, server: McpServer, principal: Principal) -> StoredToken | None:
        if principal.connection_id is None:
            return None
        token = await read_token(self._kit.db, self._kit.keys, principal.connection_id)
        if token is None or (token.server_id, token.user_id) != (server.id, principal.user_id):
            return None
        return token

    async def ask(self, server_url: str, token: StoredToken) -> Grant:
        found = await self._client(token)
        if found is None:
            raise Refused("client_unknown", client=True)
        client, token_url = found
        http = await self._kit.http(server_url)
        return await refreshed(http, token_url, client, token)

    async def lost(self, token: StoredToken, refused: Refused) -> ReauthReason | None:
        """A client that is not configured any more fails once, and then for good; so does one that
        was registered, as there will be another one. Any other may be mended where it was set."""
        if not (refused.client or refused.permanent) or token.server_id is None:
            return None
        try:
            configured = await read_server(self._kit.db, self._kit.keys, token.server_id)
        except NotFound:
            return None
        ours = (configured.issuer.issuer, configured.client.client_id)
        replaceable = refused.client and configured.client.source == "registered"
        if replaceable or ours != (token.issuer, token.client_id):
            return "client_changed"
        return "invalid_grant" if refused.permanent else None

    async def unwanted(self, token: StoredToken) -> ReauthReason:
        """The server may have another authorization server since. Raises NoToken."""
        if token.server_id is None:
            return "unauthorized"
        server = await readable(read_server(self._kit.db, self._kit.keys, token.server_id))
        ours = (server.issuer.issuer, server.client.client_id)
        return "unauthorized" if ours == (token.issuer, token.client_id) else "client_changed"

    async def _client(self, token: StoredToken) -> tuple[Client, str] | None:
        if token.server_id is None:
            return None
        found = await client_of(
            self._kit.db, self._kit.keys, token.server_id, token.issuer, token.client_id
        )
        if found is None:
            return None
        # An issuer may move its endpoint. One without a name is only known by it.
        return found.client, found.token_url if token.issuer else token.token_url
