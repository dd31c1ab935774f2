"""Lines of the audit log as administrators read them: no secret, no word of anybody's chat."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from pydantic import BaseModel, Field

from chatd.core.auditing import LINE_KINDS, AuditCursor, LineKind
from chatd.core.redaction import redact
from chatd.core.times import rfc3339
from chatd.store.db import load

MAX_ARGUMENTS = 2048

_SUBJECTS = {"api_token": "user_id", "group": "user_id", "turn": "owner_id"}
"""Where a change's fields name the user whom it is about."""

_DECISIONS = {"approve": "approved", "deny": "denied"}

Line = dict[str, Any]


class LineTarget(BaseModel):
    type: str = Field(examples=["mcp_server"])
    id: str


class AuditLine(BaseModel):
    """One thing that happened. What a kind of lines does not have is null."""

    id: str
    at: datetime
    kind: LineKind
    actor_id: UUID | None = Field(description="Who did it; null: an operator, or the deployment.")
    user_id: UUID | None = Field(description="Whom it is about, or whose connection it was.")
    action: str = Field(description="`call`, `connect`, `disconnect`, `approve`, `deny`, `update`…")
    target: LineTarget
    chat_id: UUID | None
    server_id: UUID | None
    server: str | None = Field(description="The server's slug.")
    tool: str | None = Field(description="As its server names it.")
    arguments: str | None = Field(
        description="Of a call, redacted and cut at 2 KiB. Null unless the audit setting "
        "`arguments` is `redacted`, and when they are too long or no JSON."
    )
    arguments_sha256: str | None = Field(
        description="Of the arguments as the model wrote them. It stays when the chat is gone, "
        "and goes when the user is erased."
    )
    outcome: str | None = Field(description="A call's state, a decision, or a connection's end.")
    error_code: str | None = Field(description="Why there is no connection.")
    duration_ms: int | None
    tool_count: int | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    request_id: str | None
    process: str | None


class AuditLines(BaseModel):
    lines: list[AuditLine] = Field(description="Newest first.")
    next: str | None = Field(description="`before` of the next page; null: this was the last one.")


def cursor_of(row: Any) -> AuditCursor:
    """Of a row that `store.auditing` has read."""
    return AuditCursor(row["at"], _kind(row), row["id"])


def to_lines(rows: Iterable[Any], *, with_arguments: bool) -> list[Line]:
    return [_line(row, with_arguments) for row in rows]


def to_json_lines(rows: Iterable[Any], *, with_arguments: bool) -> bytes:
    lines = to_lines(rows, with_arguments=with_arguments)
    return b"".join(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in lines)


def shown_arguments(text: str) -> str | None:
    """Redacted as JSON, then cut; None for what is no JSON: its secrets could not be told."""
    try:
        value = orjson.loads(text)
    except ValueError:
        return None
    shown = orjson.dumps(redact(value)).decode()
    if len(shown.encode()) <= MAX_ARGUMENTS:
        return shown
    return shown.encode()[: MAX_ARGUMENTS - 3].decode(errors="ignore") + "…"


def _kind(row: Any) -> LineKind:
    rank: int = row["rank"]
    return LINE_KINDS[rank]


def _id(value: UUID | None) -> str | None:
    return str(value) if value is not None else None


def _line(row: Any, with_arguments: bool) -> Line:
    kind = _kind(row)
    target = _target(row, kind)
    arguments = row["arguments"] if with_arguments else None
    return {
        "id": f"{kind}-{row['id']}",
        "at": rfc3339(row["at"]),
        "kind": kind,
        **_people(row, kind, target),
        "action": _action(row, kind),
        "target": target,
        "chat_id": _id(row["chat_id"]),
        "server_id": _id(row["server_id"]),
        "server": row["server"],
        "tool": row["tool"],
        "arguments": shown_arguments(arguments) if arguments is not None else None,
        "arguments_sha256": row["arguments_sha256"],
        "outcome": _DECISIONS.get(row["action"]) if kind == "approval" else row["outcome"],
        "error_code": row["error_code"] or None,
        "duration_ms": row["duration_ms"],
        "tool_count": row["tool_count"],
        "before": redact(load(row["before"])),
        "after": redact(load(row["after"])),
        "request_id": row["request_id"] or None,
        "process": row["process"],
    }


def _people(row: Any, kind: LineKind, target: Line) -> Line:
    match kind:
        case "change":
            return {"actor_id": _id(row["actor_id"]), "user_id": _subject(row, target)}
        case "approval":
            return {"actor_id": _id(row["actor_id"]), "user_id": _id(row["actor_id"])}
        case "call":
            return {"actor_id": _id(row["user_id"]), "user_id": _id(row["user_id"])}
        case "connection":
            return {"actor_id": None, "user_id": _id(row["user_id"])}


def _subject(row: Any, target: Line) -> str | None:
    """Whom a change is about: themselves, their token or turn, or they as member of a group."""
    if target["type"] == "user":
        return target["id"]
    fields: Line = load(row["after"]) or load(row["before"]) or {}
    return fields.get(_SUBJECTS.get(target["type"], ""))


def _action(row: Any, kind: LineKind) -> str:
    match kind:
        case "call":
            return "call"
        case "connection":
            return "disconnect" if row["outcome"] == "disconnected" else "connect"
        case "change" | "approval":
            return row["action"]


def _target(row: Any, kind: LineKind) -> Line:
    match kind:
        case "call":
            return {"type": "tool_call", "id": str(row["id"])}
        case "connection":
            return {"type": "mcp_server", "id": str(row["server_id"])}
        case "change" | "approval":
            return {"type": row["target_type"], "id": row["target_id"]}
