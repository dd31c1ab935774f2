"""Token services as several processes have them, over one database and one authority."""

from collections.abc import AsyncGenerator, Callable
from ipaddress import ip_network
from typing import Any

import pytest

from chatd.core.oauth import Client
from chatd.credentials import Pace, TokenService
from chatd.outbound import Outbound
from chatd.store.db import Database
from tests.credentials.accounts import CLIENT_ID
from tests.credentials.rotating import Rotating, running
from tests.seed import KEYS

MakeService = Callable[..., TokenService]

PACE = Pace(request_s=0.5, pause_s=0.05)


@pytest.fixture
async def outbound() -> AsyncGenerator[Outbound]:
    made = Outbound(mcp_allowed=[ip_network("127.0.0.0/8")])
    yield made
    await made.aclose()


@pytest.fixture
async def authority() -> AsyncGenerator[Rotating]:
    async with running(Rotating()) as server:
        yield server


@pytest.fixture
async def make_service(db: Database, outbound: Outbound) -> AsyncGenerator[MakeService]:
    """Each is a process of its own, as far as tokens are concerned."""
    made: list[TokenService] = []

    def make(pace: Pace = PACE, **options: Any) -> TokenService:
        service = TokenService(db, KEYS, outbound, login=Client(CLIENT_ID), pace=pace, **options)
        made.append(service)
        return service

    yield make
    for service in made:
        await service.close()


@pytest.fixture
def service(make_service: MakeService) -> TokenService:
    return make_service()
