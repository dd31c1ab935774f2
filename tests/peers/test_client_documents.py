"""A client id that is the URL of a document, at an authorization server that nobody here wrote."""

import asyncio
from collections.abc import Generator
from pathlib import Path

import httpx2
import pytest

from tests.e2e.client import Client
from tests.e2e.fleet import Fleet, Process
from tests.peers.guarded import connect, guarding, who

PUBLIC = "https://chatd.example"
"""What browsers and authorization servers know our front door by."""
LIFETIME_S = 300


class Rerouted(httpx2.AsyncBaseTransport):
    """To the front door, as if it had that name and a certificate."""

    def __init__(self, door: str) -> None:
        self._door = httpx2.URL(door)
        self._inner = httpx2.AsyncHTTPTransport(verify=False, trust_env=False)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        door = self._door
        url = request.url.copy_with(scheme=door.scheme, host=door.host, port=door.port)
        inner = httpx2.Request(
            request.method,
            url,
            headers=request.headers,
            stream=request.stream,
            extensions=request.extensions,
        )
        return await self._inner.handle_async_request(inner)

    async def aclose(self) -> None:
        await self._inner.aclose()


@pytest.fixture(scope="module")
def door(fleet: Fleet) -> Generator[Process]:
    """One more front door, which the world knows by an https name."""
    door = asyncio.run(fleet.api(CHATD_ACCESS_URL=PUBLIC))
    fleet.apis.remove(door)
    yield door
    asyncio.run(door.child.stop())


async def test_an_authorization_server_reads_who_we_are_by_itself(
    worker: Process,
    door: Process,
    fleet: Fleet,
    packages: Path,
    services_folder: Path,
) -> None:
    reads = {"DOCUMENTS_AT": PUBLIC, "DOCUMENTS": door.url}
    async with (
        Client(door.url, fleet.tokens["ada"]) as admin,
        Client(door.url, fleet.tokens["max"]) as member,
        guarding(services_folder, admin, LIFETIME_S, reads=reads) as guarded,
    ):
        assert guarded.config["oauth2_client_source"] == "metadata_document"
        client_id = guarded.config["oauth2_client_id"]
        assert client_id.startswith(f"{PUBLIC}/")
        await connect(member, guarded.config, {PUBLIC: Rerouted(door.url)})
        assert (await member.get(guarded.place))["auth_connected"]
        assert await who(member, **guarded.only) == "somebody"
        token = guarded.seen.believed[-1]
        stats = await guarded.stats()
        assert (stats["registrations"], stats["documents"], stats["codes"]) == (0, 1, 1)
        granted = await guarded.seen.verify_token(token)
        assert granted is not None
        assert granted.client_id == client_id
        ended = await member.http.delete(f"{guarded.place}/oauth2/disconnect")
        assert ended.json() == {"token_revoked": True, "token_revocation_error": ""}
        assert (await guarded.stats())["revocations"] == 1
