"""A user's account at one server."""

import asyncio

from pydantic import SecretStr

from chatd import logs
from chatd.core.errors import ChatdError, NotFound
from chatd.core.oauth import Grant, ReauthReason, StoredToken
from chatd.core.servers import McpAuth, McpServer, Principal, UserAuth
from chatd.credentials.reading import readable
from chatd.credentials.source import Source, refreshed
from chatd.oauth.errors import Refused
from chatd.oauth.revocation import TokenHint, revoke
from chatd.store.oauth_clients import KnownClient, client_of
from chatd.store.oauth_servers import OAuthServer, read_server
from chatd.store.oauth_tokens import read_token, read_token_of

GIVE_BACK_S = 5.0
UNSUPPORTED = "unsupported_token_type"

log = logs.get("tokens")


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
        http = await self._kit.http(server_url)
        return await refreshed(http, found.token_url, found.client, token)

    async def lost(self, token: StoredToken, refused: Refused) -> ReauthReason | None:
        """A client that is not configured any more fails once, and then for good; so does one that
        was registered, as there will be another one. Any other may be mended where it was set."""
        if not (refused.client or refused.permanent) or token.server_id is None:
            return None
        try:
            configured = await read_server(self._kit.db, self._kit.keys, token.server_id)
        except NotFound:
            return None
        replaceable = refused.client and configured.client.source == "registered"
        if replaceable or not _bound(token, configured):
            return "client_changed"
        return "invalid_grant" if refused.permanent else None

    async def unwanted(self, token: StoredToken) -> ReauthReason:
        """The server may have another authorization server since. Raises NoToken."""
        if token.server_id is None:
            return "unauthorized"
        reading = read_server(self._kit.db, self._kit.keys, token.server_id)
        server = await readable(self._kit.db, reading)
        return "unauthorized" if _bound(token, server) else "client_changed"

    async def give_back(self, server_url: str, token: StoredToken, grant: Grant) -> None:
        """Not where its user has connected again: some servers would end that connection too."""
        try:
            async with asyncio.timeout(GIVE_BACK_S):
                said = await self._given_back(server_url, token, grant)
        except TimeoutError:
            said = "no answer in time"
        except ChatdError as error:
            said = error.code
        if said:
            log.warning("a grant was not given back", server=str(token.server_id), reason=said)

    async def _given_back(self, server_url: str, token: StoredToken, grant: Grant) -> str:
        db, keys = self._kit.db, self._kit.keys
        now = await read_token_of(db, keys, server_id=token.server_id, user_id=token.user_id)
        if now is not None and now.id != token.id:
            return "its user has connected again"
        found = await self._client(token)
        if found is None:
            return "its client is not known any more"
        http = await self._kit.http(server_url)

        async def ask(secret: SecretStr, hint: TokenHint) -> str:
            endpoint = found.revocation_url
            return await revoke(http, endpoint, found.client, secret, hint, issuer=token.issuer)

        refresh = grant.refresh_token or token.refresh_token
        said = await ask(refresh, "refresh_token") if refresh else UNSUPPORTED
        return await ask(grant.access_token, "access_token") if said == UNSUPPORTED else said

    async def _client(self, token: StoredToken) -> KnownClient | None:
        if token.server_id is None:
            return None
        bound = token.issuer, token.client_id, token.token_url
        return await client_of(self._kit.db, self._kit.keys, token.server_id, *bound)


def _bound(token: StoredToken, server: OAuthServer) -> bool:
    """Whether its server is configured with the client it was granted to. An issuer may move its
    endpoint; one without a name is only known by it."""
    issuer = server.issuer
    same = (token.issuer, token.client_id) == (issuer.issuer, server.client.client_id)
    return same and (bool(token.issuer) or token.token_url == issuer.token_endpoint)
