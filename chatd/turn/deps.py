"""What a turn works with, and how its worker speaks to it while it runs."""

from dataclasses import dataclass
from typing import Literal

from chatd.catalogue import Catalogue
from chatd.llm.clients import ModelClients
from chatd.mcp.pool import SessionPool
from chatd.queue import Stops, Wakes
from chatd.store.db import Database
from chatd.store.loading import TurnLoader
from chatd.stream.publisher import Publisher
from chatd.titles import Titles


@dataclass(frozen=True, slots=True)
class TurnDeps:
    """One per worker process."""

    db: Database
    loader: TurnLoader
    publisher: Publisher
    wakes: Wakes
    stops: Stops
    catalogue: Catalogue
    sessions: SessionPool
    models: ModelClients
    titles: Titles | None = None
    """None: new chats keep their first words as title."""


StopReason = Literal["interrupt", "lost", "drain"]


@dataclass(slots=True)
class Control:
    """Between a turn and its worker, which sets `stop` before it cancels the turn's task.

    `interrupt`: the user stopped it; commit what there is. `lost`: the turn is no longer ours;
    write nothing. `drain`: the worker goes away; give the turn back.
    """

    stop: StopReason | None = None
    policy_version: int = 0
    """The newest that a push or the lease renewal has told."""
    more: bool = True
    """Told by the turn: others may be pending. Those that became it since have a wake."""
