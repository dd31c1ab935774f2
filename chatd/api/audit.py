"""The audit log: read page by page, exported as JSON lines, kept as long as it is set."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints
from starlette.responses import StreamingResponse

from chatd import audit
from chatd.api import config
from chatd.api.admin import AdminBody
from chatd.api.answers import FORBIDDEN, json_answer
from chatd.api.audit_lines import AuditLines, cursor_of, to_json_lines, to_lines
from chatd.api.auth import Admin, by
from chatd.api.config_bodies import Days
from chatd.api.exporting import BUSY, LINES, Export
from chatd.api.fields import Limit, refusal
from chatd.api.limits import JsonRoute
from chatd.api.parts import Parts, PartsDep
from chatd.audit import Target
from chatd.core.auditing import AuditCursor, AuditFilters, LineKind
from chatd.core.config import ArgumentsShown
from chatd.store.auditing import read_lines
from chatd.store.config import read_config

router = APIRouter(tags=["audit"], route_class=JsonRoute)

EXPORT_PAGE = 200

_YEARS = range(2000, 3000)


def _instant(value: AwareDatetime) -> AwareDatetime:
    if value.year not in _YEARS:
        raise ValueError("must be between 2000 and 2999")
    return value


def _cursor(value: str) -> str:
    try:
        AuditCursor.parse(value)
    except ValueError:
        raise refusal("Invalid before parameter.") from None
    return value


Word = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Moment = Annotated[AwareDatetime, AfterValidator(_instant)]
Cursor = Annotated[str, AfterValidator(_cursor)]


class ExportQuery(BaseModel):
    """Lines that match all of it. Unknown names are refused: a typo is no filter."""

    model_config = ConfigDict(extra="forbid")

    kind: LineKind | None = None
    actor: Annotated[UUID | None, Field(description="Who did it.")] = None
    user: Annotated[UUID | None, Field(description="Whom it is about.")] = None
    chat: UUID | None = None
    server: Annotated[UUID | None, Field(description="An MCP server's id.")] = None
    action: Word | None = None
    target_type: Word | None = None
    target_id: Word | None = None
    tool: Annotated[Word | None, Field(description="As its server or the model calls it.")] = None
    outcome: Word | None = None
    since: Annotated[Moment | None, Field(alias="from", description="RFC 3339, inclusive.")] = None
    until: Annotated[Moment | None, Field(alias="to", description="RFC 3339, exclusive.")] = None

    def to_filters(self) -> AuditFilters:
        return AuditFilters(**{name: getattr(self, name) for name in ExportQuery.model_fields})


class LinesQuery(ExportQuery):
    limit: Limit = 50
    before: Annotated[Cursor | None, Field(description="`next` of the page before.")] = None


class AuditBody(AdminBody):
    """What the log tells of arguments, and how long it is kept; 0 days: for ever."""

    arguments: ArgumentsShown
    retention_days: Days
    connection_retention_days: Days


@router.get("/audit", response_model=AuditLines, responses=FORBIDDEN, summary="Read the audit log")
async def list_lines(
    actor: Admin, parts: PartsDep, query: Annotated[LinesQuery, Query()]
) -> Response:
    """Changes by administrators, approvals, tool calls and connections to MCP servers."""
    before = AuditCursor.parse(query.before) if query.before is not None else None
    with_arguments = await _with_arguments(parts)
    rows = await read_lines(parts.db, query.to_filters(), before, query.limit + 1)
    page = rows[: query.limit]
    # A thread: redacting a page of arguments takes longer than a stream should wait.
    lines = await asyncio.to_thread(to_lines, page, with_arguments=with_arguments)
    more = len(rows) > query.limit
    return json_answer({"lines": lines, "next": str(cursor_of(page[-1])) if more else None})


@router.get(
    "/audit/export",
    response_class=StreamingResponse,
    responses={
        **FORBIDDEN,
        **BUSY,
        200: {
            "description": "One line of JSON for each line, newest first.",
            "content": {LINES: {"schema": {"type": "string"}}},
        },
    },
    summary="Export the audit log",
)
async def export_lines(
    request: Request, actor: Admin, parts: PartsDep, query: Annotated[ExportQuery, Query()]
) -> Response:
    """A broken transfer ends without the end of the body. That it was exported is a line, too."""
    filters = query.to_filters()
    with parts.permits.export(actor) as permit:
        with_arguments = await _with_arguments(parts)
        first = await read_lines(parts.db, filters, None, EXPORT_PAGE)
        async with parts.db.transaction() as session:
            asked = query.model_dump(mode="json", by_alias=True, exclude_none=True)
            target = Target("audit_log", "all")
            audit.record(session, by(request, actor), "export", target, after=asked)
    lines = _exported(parts, filters, first, with_arguments)
    return Export(permit, lines, "audit.jsonl", parts.streams.pace.send_timeout_s)


@router.get(
    "/chats/config/audit",
    response_model=AuditBody,
    responses=FORBIDDEN,
    summary="How the audit log is kept",
)
async def get_audit_settings(actor: Admin, parts: PartsDep) -> Response:
    return json_answer((await read_config(parts.db)).audit.model_dump())


@router.put(
    "/chats/config/audit",
    response_model=AuditBody,
    responses=FORBIDDEN,
    summary="Set how the audit log is kept",
)
async def put_audit_settings(
    request: Request, body: AuditBody, actor: Admin, parts: PartsDep
) -> Response:
    """What is older than that is removed within a day."""
    await config.write(request, parts, actor, "audit", body.model_dump())
    return json_answer(body.model_dump())


async def _with_arguments(parts: Parts) -> bool:
    return (await read_config(parts.db)).audit.arguments == "redacted"


async def _exported(
    parts: Parts, filters: AuditFilters, rows: Sequence[Any], with_arguments: bool
) -> AsyncGenerator[bytes]:
    """Page by page as the client takes them, so one page is all that is in memory."""
    while rows:
        yield await asyncio.to_thread(to_json_lines, rows, with_arguments=with_arguments)
        if len(rows) < EXPORT_PAGE:
            return
        rows = await read_lines(parts.db, filters, cursor_of(rows[-1]), EXPORT_PAGE)
