"""What the routes work with: built once by `app.py`, found through the request."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from redis.asyncio import Redis
from starlette.requests import Request

from chatd.api.stream import Streams
from chatd.catalogue import Catalogue
from chatd.commands import Commands
from chatd.store.db import Database
from chatd.store.secrets import KeyRing


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
    streams: Streams
    catalogue: Catalogue
    drain: Drain


async def _parts(request: Request) -> Parts:
    # Async because FastAPI runs anything else in a thread.
    return request.app.state.parts


PartsDep = Annotated[Parts, Depends(_parts)]
