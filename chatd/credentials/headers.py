"""Whose headers go to an MCP server: its credentials and, where wanted, who is asking."""

from collections.abc import Mapping
from typing import Protocol

from chatd.core.errors import Unavailable
from chatd.core.oauth import Bearer
from chatd.core.servers import McpAuth, McpServer, Principal, ServiceAuth, UserAuth
from chatd.credentials.failures import NotConnected, NoToken
from chatd.credentials.header import NAME
from chatd.mcp.errors import ServerFailed
from chatd.mcp.exchange import Refusal
from chatd.oauth.challenge import Challenge, parse_challenge


class Tokens(Protocol):
    """What is needed of the token service."""

    def serves(self, auth: McpAuth) -> bool: ...

    async def bearer(self, server: McpServer, principal: Principal) -> Bearer: ...

    async def refused(
        self,
        server: McpServer,
        principal: Principal,
        bearer: Bearer,
        challenge: Challenge,
        *,
        in_session: bool = False,
    ) -> Bearer | None: ...

    async def refused_again(
        self, server: McpServer, principal: Principal, bearer: Bearer, *, in_session: bool = False
    ) -> None: ...

    async def lacks_scope(
        self, server: McpServer, bearer: Bearer, challenge: Challenge
    ) -> None: ...


class _Sent(dict[str, str]):
    """Headers that know which token is in them."""

    def __init__(self, headers: Mapping[str, str], bearer: Bearer) -> None:
        super().__init__(headers)
        self.bearer = bearer


class Credentials:
    """Asked for every request, so that what it hands out is never older than the request."""

    def __init__(self, tokens: Tokens | None = None) -> None:
        """Without a token service, servers that want tokens are refused."""
        self._tokens = tokens

    async def headers(self, server: McpServer, principal: Principal) -> Mapping[str, str]:
        """Identity headers only if the server wants them; a configured header of that name wins.

        Raises ServerFailed rather than let a request go out without the token it needs.
        """
        if self._tokens is None or not self._tokens.serves(server.auth):
            if isinstance(server.auth, UserAuth | ServiceAuth):
                raise ServerFailed("auth_required", "there is no token for this server")
            return _with_identity(server, principal, server.auth.headers())
        try:
            bearer = await self._tokens.bearer(server, principal)
        except NotConnected as missing:
            raise _not_connected(missing) from None
        except (NoToken, Unavailable) as missing:
            raise ServerFailed("unavailable", missing.message) from None
        return _sent(server, principal, bearer)

    async def refused(
        self, server: McpServer, principal: Principal, refusal: Refusal
    ) -> Mapping[str, str] | None:
        """A newer token, if it was the token that was refused and there is one."""
        sent = refusal.sent
        if self._tokens is None or not isinstance(sent, _Sent):
            return None
        challenge, in_session = parse_challenge(refusal.challenges), refusal.in_session
        if refusal.status == 403:
            await self._tokens.lacks_scope(server, sent.bearer, challenge)
            return None
        if refusal.again:
            await self._tokens.refused_again(server, principal, sent.bearer, in_session=in_session)
            return None
        bearer = await self._tokens.refused(
            server, principal, sent.bearer, challenge, in_session=in_session
        )
        return _sent(server, principal, bearer) if bearer is not None else None


def _sent(server: McpServer, principal: Principal, bearer: Bearer) -> _Sent:
    configured = {NAME: bearer.header.get_secret_value()}
    return _Sent(_with_identity(server, principal, configured), bearer)


def _not_connected(missing: NotConnected) -> ServerFailed:
    if missing.reason == "not_connected":
        return ServerFailed("auth_required", "the user has not connected this server")
    return ServerFailed(
        "auth_required", f"the user has to connect this server again ({missing.reason})"
    )


def _with_identity(
    server: McpServer, principal: Principal, configured: dict[str, str]
) -> dict[str, str]:
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
