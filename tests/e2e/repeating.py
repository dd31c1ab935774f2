"""An authorization server, and the MCP server that it guards, which repeat whatever they are sent
and remember every secret that they hand out or see."""

from base64 import b64decode
from collections import defaultdict
from collections.abc import Awaitable, Callable
from secrets import token_hex
from typing import Any
from urllib.parse import parse_qsl, urlencode

import orjson

from tests.mcp.peer import Peer, error, result
from tests.outbound.raw_server import Exchange

SENT = "I was sent"
_JSON = "content-type: application/json\r\n"
_RESOURCE = "/.well-known/oauth-protected-resource/mcp"


class Repeating(Peer):
    """`refusing`: every form gets an error whose code is a secret of it, and which quotes it."""

    def __init__(self, meanwhile: Callable[[], Awaitable[None]]) -> None:
        """`meanwhile` runs while a browser is here."""
        super().__init__()
        self.secrets: dict[str, set[str]] = defaultdict(set)
        """By kind."""
        self.refusing = False
        self.refused: list[str] = []
        """Whose forms were."""
        self.refreshes = self.unauthorized = 0
        self.says = {"tools/call": _tell_headers}
        self._meanwhile = meanwhile
        self._access: set[str] = set()
        self._ways: dict[str, Callable[[Exchange], Awaitable[None]]] = {
            _RESOURCE: self._resource,
            "/.well-known/oauth-authorization-server": self._metadata,
            "/register": self._register,
            "/authorize": self._authorize,
            "/token": self._token,
            "/revoke": self._token,
        }

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def expire(self) -> None:
        """No access token is good any more."""
        self._access.clear()

    async def answer(self, exchange: Exchange) -> None:
        way = self._ways.get(exchange.path.partition("?")[0])
        kind, _, token = exchange.headers.get("authorization", "").partition(" ")
        if way is not None:
            await way(exchange)
        elif kind == "Bearer" and token in self._access:
            await super().answer(exchange)
        else:
            self.unauthorized += bool(token)
            metadata = f'resource_metadata="{self.origin}{_RESOURCE}"'
            challenge = f'Bearer error="invalid_token", error_description="{token}", {metadata}'
            said = f"www-authenticate: {challenge}\r\n"
            await exchange.answer(_said(exchange).encode(), status=401, headers=said)

    async def _resource(self, exchange: Exchange) -> None:
        told = {"resource": self.url, "authorization_servers": [self.origin]}
        await _send(exchange, 200, told)

    async def _metadata(self, exchange: Exchange) -> None:
        told = {
            "issuer": self.origin,
            "authorization_endpoint": f"{self.origin}/authorize",
            "token_endpoint": f"{self.origin}/token",
            "registration_endpoint": f"{self.origin}/register",
            "revocation_endpoint": f"{self.origin}/revoke",
            "response_types_supported": ["code"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic"],
            "code_challenge_methods_supported": ["S256"],
        }
        await _send(exchange, 200, told)

    async def _register(self, exchange: Exchange) -> None:
        given = {
            "client_id": "chatd-of-the-test",
            "client_secret": self._new("client secret"),
            "client_secret_expires_at": 0,
            "registration_access_token": self._new("registration token"),
        }
        await _send(exchange, 201, orjson.loads(exchange.body) | given)

    async def _authorize(self, exchange: Exchange) -> None:
        """Everybody agrees at once."""
        asked = dict(parse_qsl(exchange.path.partition("?")[2]))
        self.secrets["state"].add(asked["state"])
        await self._meanwhile()
        back = urlencode({"code": self._new("code"), "state": asked["state"]})
        await exchange.answer(status=302, headers=f"location: {asked['redirect_uri']}?{back}\r\n")

    async def _token(self, exchange: Exchange) -> None:
        form = dict(parse_qsl(exchange.body.decode()))
        basic = exchange.headers["authorization"].removeprefix("Basic ")
        self.secrets["basic"].add(basic)
        if verifier := form.get("code_verifier"):
            self.secrets["verifier"].add(verifier)
        if self.refusing:
            self.refused.append(form.get("grant_type", "revocation"))
            await self._refuse(exchange, form, b64decode(basic).decode())
            return
        self.refreshes += form["grant_type"] == "refresh_token"
        access = self._new("access token")
        self._access.add(access)
        given = {
            "access_token": access,
            "refresh_token": self._new("refresh token"),
            "id_token": self._new("id token"),
            "token_type": "Bearer",
            "expires_in": 3600,
        }
        await _send(exchange, 200, given)

    async def _refuse(self, exchange: Exchange, form: dict[str, str], client: str) -> None:
        """The code is a secret that would pass for a code."""
        names = ("code_verifier", "refresh_token", "token")
        (code,) = [form[name] for name in names if name in form]
        told = {"error": code, "error_description": f"{client} {form}", "error_uri": code, **form}
        await _send(exchange, 400, told)

    def _new(self, kind: str) -> str:
        secret = f"canary-{token_hex(16)}"
        self.secrets[kind].add(secret)
        return secret


async def _tell_headers(exchange: Exchange, message: dict[str, Any]) -> None:
    """In a result, or in an error where the call has arguments."""
    said = _said(exchange)
    if message["params"].get("arguments"):
        await error(exchange, message, -32602, said)
    else:
        content = [{"type": "text", "text": said}]
        await result(exchange, message, {"content": content, "structuredContent": {"said": said}})


async def _send(exchange: Exchange, status: int, body: object) -> None:
    await exchange.answer(orjson.dumps(body), status=status, headers=_JSON)


def _said(exchange: Exchange) -> str:
    """The token by itself, which nothing tells from other words, then every header."""
    _, _, token = exchange.headers.get("authorization", "").partition(" ")
    return f"{SENT} {token} in {exchange.headers}"
