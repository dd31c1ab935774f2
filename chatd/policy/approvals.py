"""Which calls a person has to allow, and whether an approval is for this very call."""

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson

from chatd.core.servers import McpServer
from chatd.core.tools import JsonObject, OfferedTool


def approval_required(tool: OfferedTool, server: McpServer) -> bool:
    """The tool's own setting, else its server's. A read-only hint counts only if it is trusted,
    and that is the server's word as it is now, not as it was when the tool was offered."""
    setting = server.tool_settings.get(tool.original_name, {})
    match setting.get("require_approval", server.require_approval):
        case "always":
            return True
        case "unless_read_only":
            return not (tool.read_only and server.trust_annotations)
        case "never":
            return False


def approval_memory(tool: OfferedTool, arguments: JsonObject) -> dict[str, Any]:
    """What an approval is bound to, beside its turn, call and user."""
    return {
        "definition_hash": tool.definition_hash,
        "server_id": str(tool.server_id),
        "arguments_sha256": arguments_sha256(arguments),
    }


def arguments_sha256(arguments: JsonObject) -> str:
    """Of the canonical JSON, in hex."""
    canonical = orjson.dumps(arguments, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(canonical).hexdigest()


def approves(memory: Mapping[str, Any], tool: OfferedTool, arguments: JsonObject) -> bool:
    """Whether what was approved is what would be called now."""
    return memory == approval_memory(tool, arguments)
