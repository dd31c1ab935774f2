"""A server's authorization server, looked for again by itself: it may be another one by now, or
have forgotten our client.

Begun by users who connect again, so it is bounded: whoever they are, a server is looked at once in
a while. A client that an administrator has set by hand is theirs to change.

Nobody watches, and the MCP server may have been broken into: a place whose sign-in is one host's
and whose tokens are another's would have users sign in where they always do, and collect the codes.
"""

from uuid import UUID

import httpx2

from chatd import logs
from chatd.audit import By
from chatd.connecting.discovering import Discovering, Found, same_issuer
from chatd.connecting.refusals import not_by_itself
from chatd.core.errors import ChatdError, Forbidden
from chatd.core.oauth import Client, Discovered
from chatd.oauth.metadata import away
from chatd.store import oauth_servers
from chatd.store.db import Database
from chatd.store.oauth_looks import claim_look, claim_renewal
from chatd.store.oauth_servers import OAuthServer
from chatd.store.secrets import KeyRing

EVERY_S = 300
"""A server is not looked at more often by itself, nor is its client registered anew at the same
issuer, whether it goes well or not. What an administrator has just registered may be: it was
refused since."""

_USED = frozenset(
    {
        "authorization_endpoint",
        "token_endpoint",
        "registration_endpoint",
        "revocation_endpoint",
    }
)
"""Of the others nothing is kept."""

log = logs.get("oauth")


class Renewing:
    """Neither method raises: whoever connects goes on with what there is."""

    def __init__(self, db: Database, keys: KeyRing, discovering: Discovering) -> None:
        self._db = db
        self._keys = keys
        self._discovering = discovering

    async def renew(self, server_id: UUID, client_id: str) -> bool:
        """Its authorization server does not know this client any more: have another one.

        False when it cannot be had by itself, or was just tried.
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
            told = error.detail if isinstance(error, Forbidden) else ""
            reason = type(error).__name__
            log.warning(
                "a client was not renewed", server=str(server_id), reason=reason, detail=told
            )
            return False

    async def _anew(self, server_id: UUID, client_id: str, *, lost: bool) -> bool:
        server = await oauth_servers.read_server(self._db, self._keys, server_id)
        if not server.ready or server.client.source == "manual":
            return False
        if server.client.client_id != client_id:
            return True
        replace = lost and server.client.source == "registered"
        replace = replace and await claim_renewal(self._db, server_id, EVERY_S)
        if not replace and not await claim_look(self._db, server_id, EVERY_S):
            return False

        def kept(found: Discovered) -> Client | None:
            if not _trusted(server, found):
                raise not_by_itself(found)
            return None if replace or not same_issuer(server, found) else server.client

        found = await self._discovering.find(
            server_id, server.url, kept, expected=server.expected_issuer
        )
        if not _moved(server, found):
            return False
        await self._discovering.apply(server, found, By(), server.scopes)
        return not (found.client == server.client and same_issuer(server, found.discovered))


def _trusted(server: OAuthServer, found: Discovered) -> bool:
    """Whether every endpoint that no administrator has seen is at its issuer's own origin. At
    another issuer they have seen none."""
    before = server.issuer if same_issuer(server, found) else None
    return all(
        before is not None and getattr(found.issuer, name) == getattr(before, name)
        for name in away(found.issuer) & _USED
    )


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
