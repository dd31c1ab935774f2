"""Values for policy tests; everything has a default."""

from typing import Any
from uuid import UUID

from chatd.core.servers import McpServer, NoAuth
from chatd.core.tools import JsonObject, OfferedTool, ToolSpec


def make_server(slug: str = "demo", **changes: Any) -> McpServer:
    values: dict[str, Any] = {
        "id": UUID(int=1),
        "slug": slug,
        "display_name": slug,
        "transport": "streamable_http",
        "url": "https://mcp.example/mcp",
        "auth": NoAuth(),
        "version": 1,
    }
    return McpServer(**{**values, **changes})


def make_spec(name: str = "add", schema: JsonObject | None = None, **changes: Any) -> ToolSpec:
    return ToolSpec(name, f"Does {name}.", schema or {"type": "object"}, **changes)


def make_builtin(name: str) -> OfferedTool:
    return OfferedTool(name=name, original_name=name, description="", parameters={})
