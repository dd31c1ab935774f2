"""What is asked of the audit log, and where in it a reader is."""

import base64
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, get_args
from uuid import UUID

LineKind = Literal["change", "approval", "call", "connection"]
LINE_KINDS: tuple[LineKind, ...] = get_args(LineKind)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CURSOR = re.compile(r"(\d{1,16})\.([0-3])\.(\d{1,18})", re.ASCII)
"""Microseconds until the year 2286, the kind's place, the line's id."""


@dataclass(frozen=True, slots=True)
class AuditFilters:
    """None: whatever it is. A kind of lines that does not have what is asked for has none.

    `actor`: who did it; `user`: whom it is about, or whose connection it was.
    """

    kind: LineKind | None = None
    actor: UUID | None = None
    user: UUID | None = None
    chat: UUID | None = None
    server: UUID | None = None
    action: str | None = None
    target_type: str | None = None
    target_id: str | None = None
    tool: str | None = None
    outcome: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class AuditCursor:
    """The last line read. `kind` decides between lines of the same microsecond."""

    at: datetime
    kind: LineKind
    id: int

    def __str__(self) -> str:
        micros = (self.at - _EPOCH) // timedelta(microseconds=1)
        text = f"{micros}.{LINE_KINDS.index(self.kind)}.{self.id}"
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> "AuditCursor":
        """Raises ValueError."""
        padded = text + "=" * (-len(text) % 4)
        try:
            plain = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii")
        except ValueError:
            plain = ""
        found = _CURSOR.fullmatch(plain)
        if found is None:
            raise ValueError("not a cursor")
        micros, rank, line_id = (int(number) for number in found.groups())
        return cls(_EPOCH + timedelta(microseconds=micros), LINE_KINDS[rank], line_id)
