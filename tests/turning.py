"""What a turn works with, all of it real."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from ipaddress import ip_network

from redis.asyncio import Redis

from chatd.catalogue import Catalogue, Pinning
from chatd.credentials import Credentials, TokenService
from chatd.llm.clients import ModelClients
from chatd.mcp.pool import SessionPool
from chatd.outbound import Outbound
from chatd.queue import Stops, Wakes
from chatd.store.db import Database
from chatd.store.loading import TurnLoader
from chatd.stream.publisher import Publisher
from chatd.turn.deps import TurnDeps
from tests.seed import KEYS

LOOPBACK = [ip_network("127.0.0.0/8")]


@asynccontextmanager
async def turn_deps(db: Database, redis: Redis) -> AsyncGenerator[TurnDeps]:
    """As `workers.main` wires them. The publisher waits for nothing; wakes and stops stay here."""
    outbound = Outbound(LOOPBACK, LOOPBACK)
    tokens = TokenService(db, KEYS, outbound)
    sessions = SessionPool(lambda auth: outbound.mcp_client(auth=auth), Credentials(tokens))
    catalogue = Catalogue(redis, sessions, Pinning(db))
    publisher = Publisher(redis, window_s=0)
    publisher.start()
    yield TurnDeps(
        db=db,
        loader=TurnLoader(db, KEYS),
        publisher=publisher,
        wakes=Wakes(redis),
        stops=Stops(redis),
        catalogue=catalogue,
        sessions=sessions,
        models=ModelClients(outbound.model_client()),
    )
    await publisher.close()
    await catalogue.aclose()
    await sessions.aclose()
    await tokens.close()
    await outbound.aclose()
