"""An MCP server that wants access tokens of an authorization server."""

from typing import Any

from tests.credentials.rotating import Rotating
from tests.mcp.peer import Peer
from tests.outbound.raw_server import Exchange


class Guarded(Peer):
    """`refusals` counts its 401s. `strict`: it believes nobody."""

    def __init__(self, authority: Rotating, **options: Any) -> None:
        super().__init__(**options)
        self.refusals = 0
        self.strict = False
        self.missing_scope = ""
        self._authority = authority

    @property
    def bearers(self) -> list[str]:
        """Of all that it believed, in order."""
        return [heard.headers.get("authorization", "") for heard in self.heard]

    async def answer(self, exchange: Exchange) -> None:
        header = exchange.headers.get("authorization", "")
        if self.strict or not self._authority.believes(header):
            self.refusals += 1
            challenge = 'www-authenticate: Bearer error="invalid_token"\r\n'
            await exchange.answer(b"canary-body", status=401, headers=challenge)
        elif self.missing_scope and b"tools/call" in exchange.body:
            challenge = (
                'www-authenticate: Bearer error="insufficient_scope", '
                f'scope="{self.missing_scope}"\r\n'
            )
            await exchange.answer(status=403, headers=challenge)
        else:
            await super().answer(exchange)
