"""An authorization server on loopback: the mcp SDK's own, with the MCP server that it guards.

`replies` puts another answer in the place of a path's own, for servers that are broken or hostile.
"""

import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import orjson
from mcp.server.auth.provider import (
    AccessToken,
    AuthorizationCode,
    AuthorizationParams,
    RefreshToken,
    TokenError,
    construct_redirect_uri,
)
from mcp.server.auth.routes import create_auth_routes
from mcp.server.auth.settings import ClientRegistrationOptions, RevocationOptions
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken
from pydantic import AnyHttpUrl
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.api.listening import listening

SCOPES = ["read", "write"]
SECRET_WORD = "canary"
"""Begins every code and token, so that a test can look for them where they must not be."""

Reply = Callable[[], Response]


class Provider:
    """In memory: every user agrees at once."""

    def __init__(self) -> None:
        self.clients: dict[str, OAuthClientInformationFull] = {}
        self.codes: dict[str, AuthorizationCode] = {}
        self.access: dict[str, AccessToken] = {}
        self.refreshing: dict[str, RefreshToken] = {}
        self.iss: str | None = None
        """Of its answers (RFC 9207)."""

    async def get_client(self, client_id: str) -> OAuthClientInformationFull | None:
        return self.clients.get(client_id)

    async def register_client(self, client_info: OAuthClientInformationFull) -> None:
        assert client_info.client_id is not None
        self.clients[client_info.client_id] = client_info

    async def authorize(
        self, client: OAuthClientInformationFull, params: AuthorizationParams
    ) -> str:
        assert client.client_id is not None
        code = AuthorizationCode(
            code=_random(),
            scopes=params.scopes or [],
            expires_at=time.time() + 60,
            client_id=client.client_id,
            code_challenge=params.code_challenge,
            redirect_uri=params.redirect_uri,
            redirect_uri_provided_explicitly=params.redirect_uri_provided_explicitly,
            resource=params.resource,
        )
        self.codes[code.code] = code
        said = {"code": code.code, "state": params.state, "iss": self.iss}
        return construct_redirect_uri(str(params.redirect_uri), **said)

    async def load_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: str
    ) -> AuthorizationCode | None:
        return self.codes.get(authorization_code)

    async def exchange_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: AuthorizationCode
    ) -> OAuthToken:
        del self.codes[authorization_code.code]
        return self._grant(authorization_code)

    async def load_refresh_token(
        self, client: OAuthClientInformationFull, refresh_token: str
    ) -> RefreshToken | None:
        return self.refreshing.get(refresh_token)

    async def exchange_refresh_token(
        self, client: OAuthClientInformationFull, refresh_token: RefreshToken, scopes: list[str]
    ) -> OAuthToken:
        del self.refreshing[refresh_token.token]
        return self._grant(refresh_token)

    async def load_access_token(self, token: str) -> AccessToken | None:
        return self.access.get(token)

    async def revoke_token(self, token: AccessToken | RefreshToken) -> None:
        self.access.pop(token.token, None)
        self.refreshing.pop(token.token, None)

    async def exchange_identity_assertion(self, client: Any, params: Any) -> OAuthToken:
        raise TokenError("unsupported_grant_type")

    def _grant(self, of: AuthorizationCode | RefreshToken) -> OAuthToken:
        given: dict[str, Any] = {"client_id": of.client_id, "scopes": of.scopes}
        access = AccessToken(token=_random(), resource=of.resource, **given)
        refreshing = RefreshToken(token=_random(), resource=of.resource, **given)
        self.access[access.token] = access
        self.refreshing[refreshing.token] = refreshing
        return OAuthToken(
            access_token=access.token,
            token_type="Bearer",
            expires_in=3600,
            scope=" ".join(of.scopes),
            refresh_token=refreshing.token,
        )


@dataclass
class Issuer:
    """Where it is, what it was asked, and how it answers."""

    url: str
    provider: Provider
    replies: dict[str, Reply] = field(default_factory=dict[str, Reply])
    asked: list[tuple[str, dict[str, str]]] = field(
        default_factory=list[tuple[str, dict[str, str]]]
    )
    """Paths of forms that were sent, with their fields."""
    before_token: Callable[[], Awaitable[None]] | None = None
    """Runs while a client waits for its token."""

    @property
    def mcp_url(self) -> str:
        return f"{self.url}/mcp"

    def forms(self, path: str) -> list[dict[str, str]]:
        return [form for asked, form in self.asked if asked == path]

    def metadata(self, **changes: Any) -> Reply:
        """Its document with these changes; None takes a field away."""
        said: dict[str, Any] = {
            "issuer": f"{self.url}/",
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "registration_endpoint": f"{self.url}/register",
            "revocation_endpoint": f"{self.url}/revoke",
            "response_types_supported": ["code"],
            "token_endpoint_auth_methods_supported": ["client_secret_post"],
            "code_challenge_methods_supported": ["S256"],
        }
        document = {name: value for name, value in (said | changes).items() if value is not None}
        return lambda: JSONResponse(document)


METADATA = "/.well-known/oauth-authorization-server"
RESOURCE = "/.well-known/oauth-protected-resource/mcp"


@asynccontextmanager
async def serving_issuer() -> AsyncGenerator[Issuer]:
    provider = Provider()
    made: list[Issuer] = []
    inner: list[ASGIApp] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await _answer(made[0], inner[0], scope, receive, send)

    async with listening(app) as url:
        made.append(Issuer(url, provider))
        inner.append(_application(made[0]))
        yield made[0]


def _application(issuer: Issuer) -> ASGIApp:
    async def guarded(request: Request) -> Response:
        named = f'Bearer resource_metadata="{issuer.url}{RESOURCE}", scope="read write"'
        return Response(status_code=401, headers={"WWW-Authenticate": named})

    async def resource(request: Request) -> Response:
        return JSONResponse(
            {
                "resource": issuer.mcp_url,
                "authorization_servers": [f"{issuer.url}/"],
                "scopes_supported": SCOPES,
            }
        )

    routes = create_auth_routes(
        issuer.provider,
        AnyHttpUrl(issuer.url),
        client_registration_options=ClientRegistrationOptions(
            enabled=True, valid_scopes=SCOPES, default_scopes=SCOPES
        ),
        revocation_options=RevocationOptions(enabled=True),
    )
    own = [Route("/mcp", guarded, methods=["GET", "POST"]), Route(RESOURCE, resource)]
    return Starlette(routes=[*own, *routes])


async def _answer(
    issuer: Issuer, inner: ASGIApp, scope: Scope, receive: Receive, send: Send
) -> None:
    path: str = scope["path"]
    body = await _body(receive)
    issuer.asked.append((path, _form(scope, body)))
    if path == "/token" and issuer.before_token is not None:
        await issuer.before_token()

    sent: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return sent.pop() if sent else await receive()

    reply = issuer.replies.get(path)
    answer: ASGIApp = reply() if reply is not None else inner
    await answer(scope, again, send)


async def _body(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


def _form(scope: Scope, body: bytes) -> dict[str, str]:
    """Of the query, the form or the JSON that was sent."""
    kind = dict(scope["headers"]).get(b"content-type", b"")
    if kind == b"application/json":
        return orjson.loads(body)
    text = (body or scope["query_string"]).decode()
    return {name: values[0] for name, values in parse_qs(text).items()}


def _random() -> str:
    return f"{SECRET_WORD}-{secrets.token_urlsafe(16)}"
