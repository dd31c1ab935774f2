"""A server's authorization server, looked for again by itself: it may be another one by now, or
have forgotten our client.

Begun by users who connect again, so it is bounded: whoever they are, a server is looked at once in
a while. A client that an administrator has set by hand is theirs to change.
"""

from uuid import UUID

import httpx2

from chatd import logs
from chatd.audit import By
from chatd.connecting.discovering import Discovering, Found, same_issuer
from chatd.core.errors import ChatdError
from chatd.core.oauth import Client, Discovered
from chatd.store import oauth_servers
from chatd.store.db import Database
from chatd.store.oauth_looks import claim_look
from chatd.store.oauth_servers import OAuthServer
from chatd.store.secrets import KeyRing

EVERY_S = 300
"""A server is not looked at more often by itself, nor is its client registered anew at the same
issuer. What an administrator has just registered may be: it was refused since."""

log = logs.get("oauth")


class Renewing:
    """Neither method raises: whoever connects goes on with what there is."""

    def __init__(self, db: Database, keys: KeyRing, discovering: Discovering) -> None:
        self._db = db
        self._keys = keys
        self._discovering = discovering

    async def renew(self, server_id: UUID, client_id: str) -> bool:
        """Its authorization server does not know this client any more: have another one.

        False when it cannot be had by itself, or was just had.
        """
        return await self._try(server_id, client_id, lost=True)

    async def look(self, server_id: UUID, client_id: str) -> bool:
        """A token of this client does not do any more: the server may have another authorization
        server by now. Whether it has, and we a client there; else the client stays."""
        return await self._try(server_id, client_id, lost=False)

    async def _try(self, server_id: UUID, client_id: str, *, lost: bool) -> bool:
        try:
            return await self._anew(server_id, client_id, lost=lost)
        except (ChatdError, httpx2.HTTPError) as error:
            reason = type(error).__name__
            log.warning("a client was not renewed", server=str(server_id), reason=reason)
            return False

    async def _anew(self, server_id: UUID, client_id: str, *, lost: bool) -> bool:
        server = await oauth_servers.read_server(self._db, self._keys, server_id)
        if not server.ready or server.client.source == "manual":
            return False
        if server.client.client_id != client_id:
            return True
        replace = lost and _replaceable(server)
        if not replace and not await claim_look(self._db, server_id, EVERY_S):
            return False

        def kept(found: Discovered) -> Client | None:
            return None if replace or not same_issuer(server, found) else server.client

        found = await self._discovering.find(
            server_id, server.url, kept, expected=server.expected_issuer
        )
        if not _moved(server, found):
            return False
        await self._discovering.apply(server, found, By())
        return not (found.client == server.client and same_issuer(server, found.discovered))


def _replaceable(server: OAuthServer) -> bool:
    recently = server.renewed_s is not None and server.renewed_s < EVERY_S
    return server.client.source == "registered" and not recently


def _moved(server: OAuthServer, found: Found) -> bool:
    """Whether anything is to be written down: another client, or other places to ask."""
    before, now = server.issuer, found.discovered.issuer
    return found.client != server.client or (
        before.issuer,
        before.authorization_endpoint,
        before.token_endpoint,
        before.revocation_endpoint,
        before.sends_issuer,
    ) != (
        now.issuer,
        now.authorization_endpoint,
        now.token_endpoint,
        now.revocation_endpoint,
        now.sends_issuer,
    )
