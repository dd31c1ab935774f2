"""Which sessions are open: shared by the turns of a worker, closed when idle or too many."""

import asyncio
import contextvars
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from uuid import UUID

import httpx2

from chatd.core.servers import McpServer, Principal
from chatd.mcp.client import AnsweringClient
from chatd.mcp.connections import Tell, follow
from chatd.mcp.errors import ServerFailed
from chatd.mcp.exchange import HeaderAuth, HeaderSource
from chatd.mcp.session import Session

Key = tuple[UUID, int, str]
Keep = Callable[[UUID, int, UUID | None], bool]
"""Whether a server in this version may still be used, for this user or (None) for all together."""


class Sessions:
    """Keyed by server, config version and principal: a session serves who opened it, nobody else.

    Closing happens in the background: the SDK's clean-up may take as long as the server wants.
    """

    def __init__(
        self,
        http_client: Callable[[httpx2.Auth], httpx2.AsyncClient],
        headers: HeaderSource,
        *,
        changed: Callable[[McpServer, Principal], None],
        tell: Tell | None,
        idle_s: float,
        limit: int,
        connect_s: float,
    ) -> None:
        self._http_client = http_client
        self._headers = headers
        self._changed = changed
        self._tell = tell
        self._idle_s = idle_s
        self._limit = limit
        self._connect_s = connect_s
        self._sessions: OrderedDict[Key, Session] = OrderedDict()
        self._owners: set[asyncio.Task[None]] = set()
        self._reaper: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._sessions)

    @asynccontextmanager
    async def use(
        self, server: McpServer, principal: Principal, *, within_s: float
    ) -> AsyncGenerator[Session]:
        """A connected session that stays open for the block. Raises ServerFailed."""
        session = self._of(server, principal)
        session.users += 1
        try:
            await _connected(session, within_s)
            yield session
        finally:
            session.users -= 1
            session.used_at = asyncio.get_running_loop().time()
            if session.retired and not session.users:
                session.close()

    @asynccontextmanager
    async def fresh(
        self, server: McpServer, principal: Principal, *, within_s: float
    ) -> AsyncGenerator[Session]:
        """A new session that nobody else is given, closed after the block. Raises ServerFailed."""
        session = self._opened(server, principal)
        try:
            await _connected(session, within_s)
            yield session
        finally:
            session.close()

    def retire(self, session: Session) -> None:
        """Gives it to nobody any more; it closes when its last user is done."""
        session.retired = True
        key = _key(session.server, session.principal)
        if self._sessions.get(key) is session:
            del self._sessions[key]

    @property
    def users(self) -> frozenset[UUID]:
        """For whom sessions are open that serve nobody else."""
        open_for = (session.principal.user_id for session in self._sessions.values())
        return frozenset(user_id for user_id in open_for if user_id is not None)

    def drop(self, keep: Keep) -> None:
        """Retire what may not be used any more; a call in flight ends first."""
        for session in tuple(self._sessions.values()):
            server, principal = session.server, session.principal
            if not keep(server.id, server.version, principal.user_id):
                self.retire(session)
                if not session.users:
                    session.close()

    async def aclose(self, *, within_s: float) -> None:
        """Closes all; after `within_s` seconds what is still closing is abandoned."""
        if self._reaper is not None:
            self._reaper.cancel()
        for session in tuple(self._sessions.values()):
            self.retire(session)
            session.close()
        if self._owners:
            _, stuck = await asyncio.wait(tuple(self._owners), timeout=within_s)
            for owner in stuck:
                owner.cancel()

    def _of(self, server: McpServer, principal: Principal) -> Session:
        key = _key(server, principal)
        session = self._sessions.get(key)
        if session is not None and session.hearing.confused:
            self.retire(session)
            if not session.users:
                session.close()
            session = None
        if session is None or session.over:
            session = self._sessions[key] = self._opened(server, principal)
        self._sessions.move_to_end(key)
        return session

    def _opened(self, server: McpServer, principal: Principal) -> Session:
        self._make_room()
        client = self._http_client(HeaderAuth(server, self._headers))
        session = Session(
            server,
            principal,
            AnsweringClient(client, server.transport),
            lambda: self._changed(server, principal),
        )
        if self._tell is not None:
            follow(session, self._tell)
        self._owners.add(session.owner)
        session.owner.add_done_callback(self._owners.discard)
        # An empty context, as for all that outlives the turn which happens to start it.
        context = contextvars.Context()
        timer = asyncio.get_running_loop().call_later(
            self._connect_s, session.give_up, context=context
        )
        session.ready.add_done_callback(lambda _: timer.cancel())
        if self._reaper is None or self._reaper.done():
            self._reaper = asyncio.create_task(self._reap(), context=context)
        return session

    def _make_room(self) -> None:
        """The least recently used go first; one in use is never closed, even over the limit."""
        for session in [session for session in self._sessions.values() if not session.users]:
            if len(self._sessions) < self._limit:
                return
            self.retire(session)
            session.close()

    async def _reap(self) -> None:
        """Runs while there are sessions."""
        loop = asyncio.get_running_loop()
        while self._sessions:
            await asyncio.sleep(self._idle_s / 4)
            for session in tuple(self._sessions.values()):
                if session.over or session.used_at + self._idle_s < loop.time():
                    if session.users:
                        continue
                    self.retire(session)
                    session.close()


async def _connected(session: Session, within_s: float) -> None:
    await asyncio.wait({session.ready}, timeout=within_s)
    if not session.ready.done():
        raise ServerFailed("timeout", "no connection in time")
    failure = session.ready.exception()
    if isinstance(failure, ServerFailed):
        # A new one: whoever waits raises it, and what it was for never left.
        raise failure.before_sending()


def _key(server: McpServer, principal: Principal) -> Key:
    return (server.id, server.version, principal.key)
