"""What the routes work with: built once by `app.py`, found through the request."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from redis.asyncio import Redis
from starlette.requests import HTTPConnection

from chatd.answering import Answers
from chatd.api import watching
from chatd.api.flow import Flow
from chatd.api.icon_cache import Icons
from chatd.api.permits import Permits
from chatd.api.rates import Rates
from chatd.api.stream import Streams
from chatd.catalogue import Catalogue
from chatd.commands import Commands
from chatd.connecting import OAuth
from chatd.core.chats import Actor
from chatd.mcp.pool import SessionPool
from chatd.people import People
from chatd.queue import Wakes
from chatd.retitling import Retitling
from chatd.signing_in import SigningIn
from chatd.store.db import Database
from chatd.store.secrets import KeyRing
from chatd.store.spending import SpendLimits
from chatd.stream.watchers import Watchers


class Drain:
    """Whether this process is on its way out: it is not ready any more, and streams end."""

    def __init__(self) -> None:
        self.started = False
        self._actions: list[Callable[[], None]] = []

    def at_start(self, action: Callable[[], None]) -> None:
        self._actions.append(action)

    def start(self) -> None:
        """Harmless a second time."""
        if not self.started:
            self.started = True
            for action in self._actions:
                action()


@dataclass(frozen=True, slots=True)
class Parts:
    db: Database
    redis: Redis
    keys: KeyRing
    commands: Commands
    answers: Answers
    titles: Retitling
    limits: SpendLimits
    streams: Streams
    watchers: Watchers
    permits: Permits
    people: People
    catalogue: Catalogue
    sessions: SessionPool
    icons: Icons
    drain: Drain
    wakes: Wakes
    rates: Rates
    oauth: OAuth
    signing_in: SigningIn
    origins: frozenset[str]
    """Whose pages may open a WebSocket and use a session: ours and the listed ones."""

    async def watch(self, actor: Actor) -> Flow:
        return await watching.watch(self.watchers, self.permits.admit(actor), self.streams.pace)


async def _parts(request: HTTPConnection) -> Parts:
    # Async because FastAPI runs anything else in a thread.
    return request.app.state.parts


PartsDep = Annotated[Parts, Depends(_parts)]
