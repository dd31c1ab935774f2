"""The clients of one process, allowed to dial loopback."""

from collections.abc import AsyncGenerator
from ipaddress import ip_network

import pytest

from chatd.llm.clients import ModelClients
from chatd.outbound import Outbound


@pytest.fixture
async def clients() -> AsyncGenerator[ModelClients]:
    outbound = Outbound([ip_network("127.0.0.0/8"), ip_network("::1/128")])
    yield ModelClients(outbound.model_client())
    await outbound.aclose()
