"""A small OpenID provider on loopback: real HTTP, real signatures, and as strict as a real one."""

import hashlib
import secrets
import time
from base64 import b64decode, urlsafe_b64encode
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, urlencode

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from tests.api.listening import listening

CLIENT_ID = "chatd"
CLIENT_SECRET = "canary-client-secret"
CANARY = "canary"
"""Begins every code and token, so that a test can look for them where they must not be."""


@cache
def _pair(number: int) -> rsa.RSAPrivateKey:
    """Made once for all tests: it takes a while."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


class _Key:
    def __init__(self, number: int) -> None:
        self.number = number
        self.kid = f"key-{number}"
        self.private = _pair(number)

    def public(self) -> dict[str, Any]:
        shown: dict[str, Any] = RSAAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        return shown | {"kid": self.kid, "use": "sig", "alg": "RS256"}


@dataclass
class Provider:
    """Whoever comes is `claims["sub"]`, and agrees at once."""

    url: str = ""
    claims: dict[str, Any] = field(
        default_factory=lambda: {
            "sub": "subject-1",
            "preferred_username": "Grace.Hopper",
            "name": "Grace Hopper",
            "email": "grace@example.org",
        }
    )
    in_token: dict[str, Any] = field(default_factory=dict[str, Any])
    """What the ID token says otherwise; None leaves a claim out."""
    userinfo: dict[str, Any] | None = None
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])
    algorithm: str = "RS256"
    gives_refresh: bool = True
    lifetime_s: int = 3600
    iss: str | None = None
    """Of its answers (RFC 9207)."""
    asked: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    """Authorization requests."""
    forms: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    """Token requests."""

    def __post_init__(self) -> None:
        self._key = _Key(0)
        self._codes: dict[str, dict[str, str]] = {}
        self._refresh: set[str] = set()
        self.access: list[str] = []

    def rotate_key(self) -> None:
        self._key = _Key(self._key.number + 1)

    async def describe(self, request: Request) -> Response:
        said: dict[str, Any] = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/jwks",
            "end_session_endpoint": f"{self.url}/end",
            "scopes_supported": ["openid", "profile", "email", "offline_access"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "code_challenge_methods_supported": ["S256"],
        }
        if self.userinfo is not None:
            said["userinfo_endpoint"] = f"{self.url}/userinfo"
        merged = {name: v for name, v in (said | self.metadata).items() if v is not None}
        return JSONResponse(merged)

    async def authorize(self, request: Request) -> Response:
        asked = dict(request.query_params)
        self.asked.append(asked)
        assert (asked["response_type"], asked["client_id"]) == ("code", CLIENT_ID)
        assert asked["code_challenge_method"] == "S256"
        assert "openid" in asked["scope"].split()
        code = _random()
        self._codes[code] = asked
        answer = {"code": code, "state": asked["state"], "iss": self.iss}
        query = urlencode({name: value for name, value in answer.items() if value is not None})
        return RedirectResponse(f"{asked['redirect_uri']}?{query}", 303)

    async def token(self, request: Request) -> Response:
        form = dict(parse_qsl((await request.body()).decode()))
        self.forms.append(form)
        scheme, _, proof = request.headers.get("authorization", "").partition(" ")
        known = b64decode(proof).decode() == f"{CLIENT_ID}:{CLIENT_SECRET}"
        if scheme != "Basic" or not known:
            return JSONResponse({"error": "invalid_client"}, 401)
        if form["grant_type"] == "refresh_token":
            return self._refreshed(form["refresh_token"])
        asked = self._codes.pop(form["code"], None)
        if asked is None or not _proven(asked, form):
            return JSONResponse({"error": "invalid_grant"}, 400)
        return JSONResponse(self._granted() | {"id_token": self._id_token(asked.get("nonce"))})

    async def keys(self, request: Request) -> Response:
        return JSONResponse({"keys": [self._key.public()]})

    async def describe_user(self, request: Request) -> Response:
        token = request.headers["authorization"].removeprefix("Bearer ")
        if token not in self.access:
            return Response(status_code=401)
        return JSONResponse(self.userinfo)

    def _refreshed(self, refresh_token: str) -> Response:
        if refresh_token not in self._refresh:
            return JSONResponse({"error": "invalid_grant"}, 400)
        self._refresh.remove(refresh_token)
        return JSONResponse(self._granted() | {"id_token": self._id_token(None)})

    def _granted(self) -> dict[str, Any]:
        self.access.append(_random())
        granted: dict[str, Any] = {
            "access_token": self.access[-1],
            "token_type": "Bearer",
            "expires_in": self.lifetime_s,
        }
        if self.gives_refresh:
            granted["refresh_token"] = _random()
            self._refresh.add(granted["refresh_token"])
        return granted

    def _id_token(self, nonce: str | None) -> str:
        now = int(time.time())
        said = {"iss": self.url, "aud": CLIENT_ID, "iat": now, "exp": now + 300, "nonce": nonce}
        claims = {k: v for k, v in (self.claims | said | self.in_token).items() if v is not None}
        if self.algorithm == "none":
            return jwt.encode(claims, "", "none")
        if self.algorithm == "HS256":
            return jwt.encode(claims, CLIENT_SECRET * 2, "HS256")
        return jwt.encode(claims, self._key.private, self.algorithm, {"kid": self._key.kid})


def _random() -> str:
    return f"{CANARY}-{secrets.token_urlsafe(16)}"


def _proven(asked: dict[str, str], form: dict[str, str]) -> bool:
    digest = hashlib.sha256(form["code_verifier"].encode()).digest()
    challenge = urlsafe_b64encode(digest).rstrip(b"=").decode()
    return (asked["code_challenge"], asked["redirect_uri"]) == (challenge, form["redirect_uri"])


@asynccontextmanager
async def providing(provider: Provider | None = None) -> AsyncGenerator[Provider]:
    made = provider or Provider()
    routes = [
        Route("/.well-known/openid-configuration", made.describe),
        Route("/authorize", made.authorize),
        Route("/token", made.token, methods=["POST"]),
        Route("/jwks", made.keys),
        Route("/userinfo", made.describe_user),
    ]
    async with listening(Starlette(routes=routes)) as url:
        made.url = url
        yield made
