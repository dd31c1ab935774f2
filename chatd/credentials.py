"""Whose headers go to an MCP server: its credentials and, where wanted, who is asking."""

from chatd.core.servers import McpServer, Principal


class Credentials:
    """Asked for every request, so that what it hands out is never older than the request."""

    async def headers(self, server: McpServer, principal: Principal) -> dict[str, str]:
        """Identity headers only if the server wants them; a configured header of that name wins."""
        configured = server.auth.headers()
        taken = {name.lower() for name in configured}
        identity = _identity(principal) if server.forward_coder_headers else {}
        kept = {name: value for name, value in identity.items() if name.lower() not in taken}
        return kept | configured


def _identity(principal: Principal) -> dict[str, str]:
    """The names are those of Coder's chatd, which servers already understand."""
    known = {
        "X-Coder-Owner-Id": principal.user_id,
        "X-Coder-Chat-Id": principal.chat_id,
        "X-Coder-Subchat-Id": principal.subchat_id,
    }
    return {name: str(value) for name, value in known.items() if value is not None}
