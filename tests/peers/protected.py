"""The SDK's MCP server behind access tokens, and the authorization servers that hand them out."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import jwt
from mcp.server import MCPServer
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import AccessToken, OAuthAuthorizationServerProvider, TokenVerifier
from mcp.server.auth.settings import AuthSettings, ClientRegistrationOptions, RevocationOptions
from pydantic import AnyHttpUrl
from starlette.types import ASGIApp

from chatd.dev.demo_mcp import slow
from tests.mcp.peer import running_built

SCOPE = "tools"
CLIENT_ID = "mcp-server"
CLIENT_SECRET = "the resource server's own secret"


async def who() -> str:
    """For whom the caller's token is."""
    token = get_access_token()
    assert token is not None
    return str(token.subject)


@dataclass
class Introspected:
    """A verifier that asks the authorization server about every token (RFC 7662)."""

    issuer: str
    believed: list[str] = field(default_factory=list[str])
    refused: list[str] = field(default_factory=list[str])

    async def verify_token(self, token: str) -> AccessToken | None:
        said = await self._ask(token)
        if not said["active"]:
            self.refused.append(token)
            return None
        self.believed.append(token)
        return AccessToken(
            token=token,
            client_id=said["client_id"],
            scopes=said["scope"].split(),
            expires_at=said["exp"],
            resource=said["aud"],
            subject=said["sub"],
        )

    async def _ask(self, token: str) -> dict[str, Any]:
        async with httpx2.AsyncClient(trust_env=False, verify=False) as http:
            answer = await http.post(
                f"{self.issuer}/token/introspection",
                data={"token": token, "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET},
            )
        answer.raise_for_status()
        return answer.json()


@dataclass
class Signed:
    """A verifier that believes what is signed (RFC 9068), and for this server alone."""

    issuer: str
    resource: str = ""
    """Its own URL: whom tokens have to be for."""
    believed: list[str] = field(default_factory=list[str])
    refused: list[str] = field(default_factory=list[str])
    reasons: set[str] = field(default_factory=set[str])
    _keys: jwt.PyJWKSet | None = None

    async def verify_token(self, token: str) -> AccessToken | None:
        try:
            claims = await self._claims(token)
        except jwt.InvalidTokenError as error:
            self.refused.append(token)
            self.reasons.add(type(error).__name__)
            return None
        self.believed.append(token)
        return AccessToken(
            token=token,
            client_id=claims["client_id"],
            scopes=claims["scope"].split(),
            expires_at=claims["exp"],
            resource=claims["aud"],
            subject=claims["sub"],
        )

    async def _claims(self, token: str) -> dict[str, Any]:
        if self._keys is None:
            async with httpx2.AsyncClient(trust_env=False, verify=False) as http:
                self._keys = jwt.PyJWKSet.from_dict((await http.get(f"{self.issuer}/jwks")).json())
        header = jwt.get_unverified_header(token)
        if header.get("typ") != "at+jwt":
            raise jwt.InvalidTokenError
        key = self._keys[header["kid"]]
        return jwt.decode(
            token,
            key,
            ["RS256"],
            audience=self.resource,
            issuer=self.issuer,
            options={"require": ["aud", "exp", "iss", "sub", "client_id"]},
        )


@asynccontextmanager
async def protected_by(verifier: Introspected | Signed) -> AsyncGenerator[str]:
    """An MCP server that leads to another authorization server; gives its URL."""

    def build(origin: str) -> ASGIApp:
        if isinstance(verifier, Signed):
            verifier.resource = f"{origin}/mcp"
        return _app(origin, verifier.issuer, token_verifier=verifier)

    async with running_built(build) as origin:
        yield f"{origin}/mcp"


@asynccontextmanager
async def protecting_itself(
    provider: Callable[[str], OAuthAuthorizationServerProvider[Any, Any, Any]],
) -> AsyncGenerator[str]:
    """An MCP server that is its own authorization server; gives its URL."""

    def build(origin: str) -> ASGIApp:
        return _app(origin, origin, auth_server_provider=provider(origin))

    async with running_built(build) as origin:
        yield f"{origin}/mcp"


def _app(
    origin: str,
    issuer: str,
    *,
    token_verifier: TokenVerifier | None = None,
    auth_server_provider: OAuthAuthorizationServerProvider[Any, Any, Any] | None = None,
) -> ASGIApp:
    options = ClientRegistrationOptions(enabled=True, valid_scopes=[SCOPE], default_scopes=[SCOPE])
    auth = AuthSettings(
        issuer_url=AnyHttpUrl(issuer),
        resource_server_url=AnyHttpUrl(f"{origin}/mcp"),
        required_scopes=[SCOPE],
        client_registration_options=options,
        revocation_options=RevocationOptions(enabled=True),
        validate_token_resource=True,
    )
    server: MCPServer[Any] = MCPServer(
        "protected",
        auth=auth,
        token_verifier=token_verifier,
        auth_server_provider=auth_server_provider,
        log_level="WARNING",
    )
    for tool in (who, slow):
        server.add_tool(tool, structured_output=False)
    return server.streamable_http_app(streamable_http_path="/mcp")
