"""A server's tool list out of the raw pages of `tools/list`: one sloppy tool costs only itself."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast
from uuid import UUID

from mcp.shared.inbound import find_invalid_x_mcp_header

from chatd.core.reasons import Reason
from chatd.core.text import bare, holds
from chatd.core.tools import Dropped, JsonObject, ToolSpec
from chatd.mcp.errors import ServerFailed, json_without, without
from chatd.mcp.schemas import UnusableSchema, object_schema

MAX_TOOLS = 2000
MAX_PAGES = 100
MAX_NAME = 128
MAX_TITLE = 200
MAX_DESCRIPTION = 8192
MAX_INSTRUCTIONS = 8192
MAX_TTL_MS = 24 * 3_600_000


@dataclass(frozen=True, slots=True)
class ToolList:
    """What a server offers one principal. `ttl_ms`: how long it says the list is good for."""

    tools: tuple[ToolSpec, ...]
    quarantined: tuple[Dropped, ...] = ()
    instructions: str = ""
    ttl_ms: int | None = None
    cache_scope: Literal["public", "private"] = "private"


@dataclass(slots=True)
class Pages:
    """Gathers pages into one list. `modern`: the server speaks 2026-07-28 with its header rules.

    `secrets` are what the server was sent, also those sent while pages are gathered.
    """

    server_id: UUID
    modern: bool
    secrets: Collection[str] = field(default=(), repr=False)
    _tools: dict[str, ToolSpec] = field(default_factory=dict[str, ToolSpec])
    _quarantined: list[Dropped] = field(default_factory=list[Dropped])
    _cursors: set[str] = field(default_factory=set[str])
    _ttl_ms: int | None = None
    _public: bool = True

    def tools_of(self, page: JsonObject) -> list[object]:
        """The page's tools, raw; also notes what the page says of its own age.

        Raises ServerFailed: no list is not the same as an empty one.
        """
        ttl_ms = page.get("ttlMs")
        if isinstance(ttl_ms, int | float) and not isinstance(ttl_ms, bool) and self.modern:
            # In this order what is no number counts as 0.
            known = int(max(0, min(ttl_ms, MAX_TTL_MS)))
            self._ttl_ms = known if self._ttl_ms is None else min(known, self._ttl_ms)
        self._public = self._public and page.get("cacheScope") == "public"
        tools = page.get("tools")
        if not isinstance(tools, list):
            raise ServerFailed("protocol", "the answer has no list of tools")
        return cast(list[object], tools)[: max(MAX_TOOLS - self.size, 0)]

    def add(self, raw: object) -> None:
        """One raw tool: kept, or quarantined with the reason."""
        parsed = self._parsed(raw)
        if isinstance(parsed, ToolSpec) and parsed.name in self._tools:
            parsed = self._drop(parsed.name, "duplicate_name", "the server lists this name twice")
        if isinstance(parsed, ToolSpec):
            self._tools[parsed.name] = parsed
        else:
            self._quarantined.append(parsed)

    def next_cursor(self, page: JsonObject) -> str | None:
        """None at the end, and where a server would send us round in circles or on for ever."""
        cursor = page.get("nextCursor")
        if not isinstance(cursor, str) or not cursor or cursor in self._cursors:
            return None
        self._cursors.add(cursor)
        full = len(self._cursors) >= MAX_PAGES or self.size >= MAX_TOOLS
        return None if full else cursor

    @property
    def size(self) -> int:
        return len(self._tools) + len(self._quarantined)

    def result(self, instructions: str | None) -> ToolList:
        return ToolList(
            tools=tuple(self._tools.values()),
            quarantined=tuple(self._quarantined),
            instructions=self._shown(instructions, MAX_INSTRUCTIONS),
            ttl_ms=self._ttl_ms,
            cache_scope="public" if self._public else "private",
        )

    def _parsed(self, raw: object) -> ToolSpec | Dropped:
        if not isinstance(raw, dict):
            return self._drop("", "unusable_name", "the entry is not an object")
        tool = cast(JsonObject, raw)
        name = tool.get("name")
        shown = self._shown(name, MAX_NAME)
        if not isinstance(name, str) or not _usable_name(name) or shown != name:
            return self._drop(_one_line(shown), "unusable_name", "the tool has no usable name")
        try:
            schema = object_schema(json_without(tool.get("inputSchema"), self.secrets))
        except UnusableSchema as problem:
            return self._drop(name, "unusable_schema", str(problem))
        if self.modern and find_invalid_x_mcp_header(schema) is not None:
            return self._drop(name, "unusable_schema", "the input schema's x-mcp-header is invalid")
        return self._spec(name, tool, schema)

    def _spec(self, name: str, tool: JsonObject, schema: JsonObject) -> ToolSpec:
        raw = tool.get("annotations")
        hints: Mapping[str, Any] = cast(JsonObject, raw) if isinstance(raw, dict) else {}
        return ToolSpec(
            name=name,
            description=self._shown(tool.get("description"), MAX_DESCRIPTION),
            input_schema=schema,
            title=_one_line(self._shown(tool.get("title") or hints.get("title"), MAX_TITLE)),
            read_only=hints.get("readOnlyHint") is True,
            idempotent=hints.get("idempotentHint") is True,
            destructive=hints.get("destructiveHint") is not False,
        )

    def _shown(self, text: object, limit: int) -> str:
        """Empty for what is no text."""
        return visible(without(text, self.secrets), limit) if isinstance(text, str) else ""

    def _drop(self, name: str, reason: Reason, detail: str) -> Dropped:
        return Dropped(name, reason, self.server_id, detail)


def visible(text: str, limit: int) -> str:
    """The text without invisible characters, at most `limit` characters."""
    text = bare(text[: 2 * limit])
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _one_line(text: str) -> str:
    """The text with one space for every stretch of white space."""
    return " ".join(text.split())


def _usable_name(name: str) -> bool:
    """One line that cleaning leaves as it is: a call has to carry it unchanged."""
    return 0 < len(name) <= MAX_NAME and holds(name) and name == _one_line(bare(name))
