"""An authorization server that rotates refresh tokens, and revokes a family when a spent one comes
back; and the protected resource beside it, which believes its access tokens only."""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar
from urllib.parse import parse_qs

import orjson

from tests.outbound.raw_server import Exchange, serving

Mood = Literal["well", "failing", "hanging", "dropping", "holding", "refusing_client", "refusing"]
"""`dropping`: rotates, then ends the connection. `holding`: rotates, then waits for `let_go`.
`refusing`: says `refusal`."""

CANARY = "canary-"
_JSON = "content-type: application/json\r\n"


@dataclass
class Family:
    """All that came of one grant."""

    refresh_token: str = ""
    spent: set[str] = field(default_factory=set[str])
    revoked: bool = False


class Rotating:
    """`refreshes` counts rotations, `revocations` families that were revoked for a reuse."""

    def __init__(self, lifetime_s: float = 0.4, *, strict: bool = False) -> None:
        """`strict`: a rotation ends the access token before as well."""
        self.lifetime_s = lifetime_s
        self.strict = strict
        self.mood: Mood = "well"
        self.refusal: tuple[int, bytes] = 400, b'{"error": "invalid_request"}'
        self.refreshes = self.revocations = self.asked = self.unauthorized = self.served = 0
        self.forms: list[dict[str, str]] = []
        self.taken_back: list[dict[str, str]] = []
        self.let_go = asyncio.Event()
        self.port = 0
        self._families: dict[str, Family] = {}
        self._access: dict[str, tuple[float, Family]] = {}
        self._news = asyncio.Condition()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def token_url(self) -> str:
        return f"{self.url}/token"

    def grant(self) -> dict[str, Any]:
        """What a user has just granted."""
        return self._issue(Family())

    def expire(self) -> None:
        """No access token is good any more."""
        self._access.clear()

    def believes(self, header: str) -> bool:
        kind, _, token = header.partition(" ")
        until, family = self._access.get(token, (0.0, None))
        alive = family is not None and not family.revoked
        return kind == "Bearer" and alive and time.monotonic() < until

    async def until_asked(self, times: int) -> None:
        async with self._news:
            await self._news.wait_for(lambda: self.asked >= times)

    async def answer(self, exchange: Exchange) -> None:
        if exchange.path == "/token":
            await self._token(exchange)
        elif exchange.path == "/revoke":
            self.taken_back.append(_form(exchange))
            await exchange.answer(b"")
        else:
            await self._resource(exchange)

    async def _resource(self, exchange: Exchange) -> None:
        good = self.believes(exchange.headers.get("authorization", ""))
        self.served += good
        self.unauthorized += not good
        await exchange.answer(b"", status=200 if good else 401)

    async def _token(self, exchange: Exchange) -> None:
        form = _form(exchange)
        self.forms.append(form)
        mood = self.mood
        if mood == "failing":
            await self._heard()
            await exchange.answer(b"canary-body", status=500)
            return
        if mood == "hanging":
            await self._heard()
            await exchange.until_closed()
            return
        if mood == "refusing":
            await self._heard()
            status, said = self.refusal
            await exchange.answer(said, status=status, headers=_JSON)
            return
        status, body = (
            self._granted(form) if mood != "refusing_client" else _error("invalid_client")
        )
        await self._heard()
        if mood == "dropping":
            exchange.writer.close()
            return
        if mood == "holding":
            await self.let_go.wait()
        await exchange.answer(orjson.dumps(body), status=status, headers=_JSON)

    def _granted(self, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        if form["grant_type"] != "refresh_token":
            return 200, self._issue(Family(), refreshable=False)
        family = self._families.get(form["refresh_token"])
        if family is None or family.revoked:
            return _error("invalid_grant")
        if form["refresh_token"] in family.spent:
            family.revoked = True
            self.revocations += 1
            return _error("invalid_grant")
        self.refreshes += 1
        family.spent.add(form["refresh_token"])
        if self.strict:
            self._access = {
                token: known for token, known in self._access.items() if known[1] is not family
            }
        return 200, self._issue(family)

    def _issue(self, family: Family, *, refreshable: bool = True) -> dict[str, Any]:
        access = CANARY + secrets.token_hex(8)
        self._access[access] = (time.monotonic() + self.lifetime_s, family)
        answer: dict[str, Any] = {
            "access_token": access,
            "token_type": "bearer",
            "expires_in": self.lifetime_s,
        }
        if refreshable:
            family.refresh_token = CANARY + secrets.token_hex(8)
            self._families[family.refresh_token] = family
            answer["refresh_token"] = family.refresh_token
        return answer

    async def _heard(self) -> None:
        async with self._news:
            self.asked += 1
            self._news.notify_all()


R = TypeVar("R", bound=Rotating)


def _form(exchange: Exchange) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(exchange.body.decode()).items()}


def _error(code: str) -> tuple[int, dict[str, Any]]:
    return 400, {"error": code, "error_description": "canary-description"}


@asynccontextmanager
async def running(server: R) -> AsyncGenerator[R]:
    async with serving(server.answer) as raw:
        server.port = raw.port
        yield server
