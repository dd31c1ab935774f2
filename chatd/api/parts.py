"""What the routes work with: built once by `app.py`, found through the request."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from redis.asyncio import Redis
from starlette.requests import Request

from chatd.api.stream import Streams
from chatd.commands import Commands
from chatd.store.db import Database
from chatd.store.secrets import KeyRing


class Drain:
    """Whether this process is on its way out."""

    def __init__(self) -> None:
        self.started = False


@dataclass(frozen=True, slots=True)
class Parts:
    db: Database
    redis: Redis
    keys: KeyRing
    commands: Commands
    streams: Streams
    drain: Drain


def _parts(request: Request) -> Parts:
    return request.app.state.parts


PartsDep = Annotated[Parts, Depends(_parts)]
