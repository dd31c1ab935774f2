"""What is known of the deployment's parts, and the report that is made of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, Field, PlainSerializer

Status = Literal["healthy", "warning", "error"]
ProcessKind = Literal["api", "worker"]

Id = Annotated[UUID, PlainSerializer(str, return_type=str)]
"""As text: the database driver's own UUIDs are none that JSON writers know."""

LOST_S = 15.0
"""Three beats that a process missed."""


# --- what is known; None where a section could not be read


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    latency_ms: float
    version: str
    migration: str | None
    newest_migration: str
    """Of this release."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessFacts:
    id: str
    kind: ProcessKind
    version: str
    started_at: datetime
    beat_at: datetime
    left_at: datetime | None = None
    beat_age_s: float = 0.0
    left_age_s: float = 0.0
    capacity: int = 0
    running: int = 0
    key_ids: frozenset[str] = frozenset()

    @property
    def live(self) -> bool:
        return self.left_at is None and self.beat_age_s <= LOST_S


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """An enabled MCP server; `outcome` is that of the newest attempt to connect."""

    id: UUID
    slug: str
    unreadable: tuple[str, ...] = ()
    """Its secrets that cannot be decrypted, and why."""
    down: bool = False
    """Workers leave it alone for a while: it did not answer."""
    outcome: str | None = None
    error_code: str = ""
    of_user: bool = False
    """The newest attempt was made with one user's credentials."""
    last_connected_at: datetime | None = None
    tools: int | None = None


@dataclass(frozen=True, slots=True)
class QueueFacts:
    pending: int
    oldest_pending_s: float
    running: int
    parked: int
    paused: bool = False


@dataclass(frozen=True, slots=True)
class ProviderFacts:
    id: UUID
    display_name: str
    lacks_key: bool = False
    unreadable: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    checked_at: datetime
    database: DatabaseFacts | None
    redis_ms: float | None
    processes: Sequence[ProcessFacts] | None
    servers: Sequence[ServerFacts] | None
    queue: QueueFacts | None
    providers: Sequence[ProviderFacts] | None
    key_ids: frozenset[str] | None
    """Of the keys that some secret is encrypted with."""


# --- the report


class HealthReason(BaseModel):
    code: str = Field(description="Stable, for programs.", examples=["lost"])
    message: str


class PartHealth(BaseModel):
    """As bad as the worst of its reasons and items."""

    status: Status
    reasons: list[HealthReason]


class DatabaseHealth(PartHealth):
    latency_ms: float | None
    version: str | None
    migration: str | None


class RedisHealth(PartHealth):
    latency_ms: float | None


class ProcessHealth(PartHealth):
    """One that said goodbye is shown for an hour, and makes nothing else worse."""

    id: str
    version: str
    started_at: datetime
    beat_at: datetime
    left_at: datetime | None
    capacity: int
    running: int


class ProcessesHealth(PartHealth):
    items: list[ProcessHealth]


class AgentsHealth(PartHealth):
    items: list[PartHealth]


class ServerHealth(PartHealth):
    id: Id
    slug: str
    last_connected_at: datetime | None
    last_error: str | None = Field(description="Of the newest attempt to connect; null: none.")
    tools: int | None = Field(description="When it was last connected to.")


class ServersHealth(PartHealth):
    items: list[ServerHealth]


class QueueHealth(PartHealth):
    """Turns by what they wait for; null: not known."""

    pending: int | None
    oldest_pending_s: float | None
    running: int | None
    parked: int | None = Field(description="Waiting for a user.")


class ProviderHealth(PartHealth):
    id: Id
    display_name: str


class ProvidersHealth(PartHealth):
    items: list[ProviderHealth]


class HealthReport(BaseModel):
    status: Status
    checked_at: datetime
    database: DatabaseHealth
    redis: RedisHealth
    workers: ProcessesHealth
    apis: ProcessesHealth
    agents: AgentsHealth
    mcp_servers: ServersHealth
    queue: QueueHealth
    providers: ProvidersHealth
