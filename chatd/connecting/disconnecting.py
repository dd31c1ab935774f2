"""The end of a connection: gone here at once, and taken back at its server if that can be done."""

import asyncio
from uuid import UUID

from chatd import audit, logs
from chatd.audit import By, Target
from chatd.connecting.flows import Disconnected
from chatd.connecting.redeeming import take_back
from chatd.core.errors import NotFound
from chatd.core.oauth import StoredToken
from chatd.outbound import Outbound
from chatd.store.db import Database
from chatd.store.oauth_clients import client_of
from chatd.store.oauth_servers import read_server
from chatd.store.oauth_states import end_states
from chatd.store.oauth_tokens import (
    delete_token,
    delete_tokens_of,
    read_token_of,
    tokens_of,
)
from chatd.store.secrets import KeyRing, Tampered, UnknownKey

log = logs.get("oauth")

_UNREADABLE = "the token cannot be read"


class Disconnecting:
    def __init__(self, db: Database, keys: KeyRing, outbound: Outbound) -> None:
        self._db = db
        self._keys = keys
        self._outbound = outbound

    async def disconnect(self, server_id: UUID, by: By) -> Disconnected:
        """Of the one who asks. Harmless a second time, and where there never was anything."""
        user_id = by.actor_id
        await end_states(self._db, server_id=server_id, user_id=user_id)
        try:
            token = await read_token_of(self._db, self._keys, server_id=server_id, user_id=user_id)
        except (Tampered, UnknownKey):
            await self._delete(server_id, by)
            return Disconnected(False, _UNREADABLE)
        if token is None or not await self._delete(server_id, by):
            return Disconnected(False, "")
        said = await self._take_back(server_id, token)
        if said:
            log.warning("a token was not revoked", server=str(server_id), reason=said)
        return Disconnected(not said, said)

    async def shut_out(self, user_id: UUID, by: By) -> None:
        """Every connection of a user who is suspended or erased: gone here at once, their servers
        are told side by side. An administrator who lets them in again gives them none back."""
        tokens = await tokens_of(self._db, self._keys, user_id)
        theirs = [(token.server_id, token) for token in tokens if token.server_id is not None]
        async with self._db.transaction() as session:
            await delete_tokens_of(session, user_id)
            for server_id, _ in theirs:
                told = {"user_id": str(user_id)}
                target = Target("mcp_server", server_id)
                audit.record(session, by, "disconnect", target, before=told)
        for said in await asyncio.gather(*(self._take_back(*each) for each in theirs)):
            if said:
                log.warning("a token was not revoked", user=str(user_id), reason=said)

    async def _delete(self, server_id: UUID, by: By) -> bool:
        async with self._db.transaction() as session:
            gone = await delete_token(session, server_id=server_id, user_id=by.actor_id)
            if gone:
                told = {"user_id": str(by.actor_id)}
                target = Target("mcp_server", server_id)
                audit.record(session, by, "disconnect", target, before=told)
        return gone

    async def _take_back(self, server_id: UUID, token: StoredToken) -> str:
        try:
            server = await read_server(self._db, self._keys, server_id)
            bound = token.issuer, token.client_id, token.token_url
            found = await client_of(self._db, self._keys, server_id, *bound)
        except (NotFound, Tampered, UnknownKey):
            return "its client cannot be read"
        if found is None:
            return "its client is not known any more"
        client, _, endpoint = found
        return await take_back(
            self._outbound,
            server.url,
            endpoint,
            client,
            token.access_token,
            token.refresh_token,
            issuer=token.issuer,
        )
