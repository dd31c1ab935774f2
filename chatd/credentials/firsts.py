"""Tokens that nobody has to connect: asked for when they are first needed."""

import asyncio
import contextvars
from uuid import UUID

from chatd import logs
from chatd.core.errors import ChatdError
from chatd.core.oauth import StoredToken
from chatd.core.servers import McpServer, Principal, UserAuth
from chatd.credentials.failures import NoToken
from chatd.credentials.pauses import Pauses
from chatd.credentials.reading import readable
from chatd.credentials.source import Source
from chatd.oauth.errors import Refused, Unreachable
from chatd.store.db import Database

log = logs.get("tokens")

_Key = tuple[type[Source], UUID, UUID | None]


class Firsts:
    """One at a time in this process, whoever wants it. Two processes at once ask twice, which
    costs nothing: what one of them saves is what both use."""

    def __init__(self, db: Database, pauses: Pauses) -> None:
        self._db = db
        self._pauses = pauses
        self._tasks: dict[_Key, asyncio.Task[StoredToken]] = {}

    async def token(self, source: Source, server: McpServer, principal: Principal) -> StoredToken:
        """Raises NotConnected, NoToken, Unavailable."""
        whose = principal.user_id if isinstance(server.auth, UserAuth) else None
        # One source may need another's first token for its own.
        key = (type(source), server.id, whose)
        task = self._tasks.get(key)
        if task is None:
            # An empty context: it belongs to no turn.
            task = asyncio.create_task(
                self._obtained(source, server, principal), context=contextvars.Context()
            )
            self._tasks[key] = task
            task.add_done_callback(lambda _: self._tasks.pop(key))
        return await asyncio.shield(task)

    def close(self) -> None:
        for task in tuple(self._tasks.values()):
            task.cancel()

    async def _obtained(
        self, source: Source, server: McpServer, principal: Principal
    ) -> StoredToken:
        error = self._pauses.error(server.id)
        if error is None:
            try:
                first = await readable(self._db, source.first(server, principal))
            except Unreachable as away:
                error = away.reason
            except Refused as refused:
                error = refused.error
            except ChatdError:
                raise
            except Exception as defect:
                error = type(defect).__name__
            else:
                self._pauses.worked(server.id)
                return first
            log.warning("no token", server=str(server.id), error=error)
            self._pauses.failed(server.id, error)
        raise NoToken(f"There is no token to be had: {error}.")
