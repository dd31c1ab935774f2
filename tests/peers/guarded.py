"""MCP servers behind the npm oidc-provider, and what users do with them."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx2

from tests.e2e.client import Client, call
from tests.e2e.fleet import registered
from tests.e2e.view import text_of
from tests.peers.browser import follow
from tests.peers.programs import start_oidc_provider
from tests.peers.protected import Introspected, Signed, protected_by

SLUG = "guarded"
NOTHING: Mapping[str, str] = MappingProxyType({})
WHO = call(f"{SLUG}__who")


@dataclass(frozen=True)
class Guarded:
    """An MCP server as chatd has it, and the authorization server that it leads to."""

    config: dict[str, Any]
    provider: str
    seen: Introspected | Signed

    @property
    def only(self) -> dict[str, Any]:
        """What makes a message use this server."""
        return {"mcp_server_ids": [self.config["id"]]}

    @property
    def place(self) -> str:
        return f"/mcp/servers/{self.config['id']}"

    async def stats(self) -> dict[str, Any]:
        return await self._ask("/stats")

    async def revoke(self) -> None:
        """Whatever was granted to anybody."""
        await self._ask("/revoke")

    async def forget(self) -> None:
        """Also whom it has registered."""
        await self._ask("/forget")

    async def _ask(self, path: str) -> dict[str, Any]:
        async with httpx2.AsyncClient(trust_env=False, verify=False) as http:
            answer = await http.post(self.provider + path)
        answer.raise_for_status()
        return answer.json()


@asynccontextmanager
async def guarding(
    folder: Path,
    admin: Client,
    lifetime_s: int,
    *,
    signed: bool = False,
    reads: Mapping[str, str] = NOTHING,
) -> AsyncGenerator[Guarded]:
    """The administrator gives nothing but a URL. `reads`: what else the provider is told."""
    tokens = "jwt" if signed else "opaque"
    peer = await start_oidc_provider(folder, lifetime_s=lifetime_s, tokens=tokens, **reads)
    try:
        seen = Signed(peer.url) if signed else Introspected(peer.url)
        async with (
            protected_by(seen) as url,
            registered(admin, SLUG, url, auth_type="oauth2") as made,
        ):
            yield Guarded(made, peer.url, seen)
    finally:
        await peer.child.stop()


async def connect(
    member: Client,
    server: dict[str, Any],
    mounts: Mapping[str, httpx2.AsyncBaseTransport] | None = None,
) -> None:
    asked = await member.post(f"/mcp/servers/{server['id']}/oauth2/connect", {})
    page = await follow(asked["connect_url"], mounts)
    assert (page.status_code, page.url.path.rpartition("/")[2]) == (200, "callback"), page.text


async def who(member: Client, **only: Any) -> str:
    """For whom the tool says that we call it."""
    turn, messages = await member.run(WHO, "/echo", **only)
    assert (turn["status"], turn["notices"]) == ("completed", []), turn
    return text_of(messages[-1])
