"""Refusals that need not be final: a server that is broken refuses good tokens too.

They mark a token so that its user is told, and it is tried again after a while: nobody has to
connect again because of a server that was out of order.
"""

import time
from uuid import UUID

from chatd.core.errors import ChatdError
from chatd.core.oauth import StoredToken
from chatd.core.servers import McpServer
from chatd.credentials.failures import NotConnected, Unclear
from chatd.credentials.marking import mark
from chatd.credentials.reading import readable
from chatd.credentials.source import Source
from chatd.store.db import Database
from chatd.store.oauth_tokens import count_refusal, read_token, try_again
from chatd.store.secrets import KeyRing

FUTILE_S = 60.0
"""A server that refused a token which was just renewed is not given newer ones for so long."""
REFUSALS = 3
"""So often in a row, minutes apart, a refresh is refused before its user is asked to connect."""
MAX_REMEMBERED = 10_000


class Doubts:
    """One per process; what it marks is in the token's row, and everybody's."""

    def __init__(self, db: Database, keys: KeyRing) -> None:
        self._db = db
        self._keys = keys
        self._futile: dict[tuple[UUID, UUID], float] = {}

    async def passed(self, token: StoredToken) -> StoredToken:
        """The token if nothing is held against it, or not any more. Raises NotConnected."""
        if token.needs_reauth is None:
            return token
        if token.may_retry or token.needs_reauth == "tampered":  # which it was to somebody else
            again = await readable(self._db, try_again(self._db, self._keys, token))
            if again is None:  # somebody else has just done the same
                again = await readable(self._db, read_token(self._db, self._keys, token.id))
            if again is not None and again.needs_reauth is None:
                return again
        raise NotConnected(token.needs_reauth)

    async def unauthorized(self, source: Source, token: StoredToken) -> None:
        """The server it is for has refused it, and nothing else can be sent instead."""
        await mark(self._db, token, await source.unwanted(token), "HTTP 401")

    async def not_renewed(self, token: StoredToken, missing: ChatdError) -> None:
        """It is over or was refused, and is not renewed. Raises NotConnected when the refusals are
        enough to ask its user; what says nothing about the token counts for nothing."""
        if not isinstance(missing, Unclear):
            return
        if await count_refusal(self._db, token) < REFUSALS:
            return
        if await mark(self._db, token, "refresh_refused", missing.error):
            raise NotConnected("refresh_refused")

    def note_futile(self, server: McpServer, token_id: UUID) -> None:
        if len(self._futile) >= MAX_REMEMBERED:
            self._futile.clear()
        self._futile[server.id, token_id] = time.monotonic() + FUTILE_S

    def is_futile(self, server: McpServer, token_id: UUID) -> bool:
        return time.monotonic() < self._futile.get((server.id, token_id), 0.0)
