"""Many processes with many turns share one refresh token that may be used once.

    python -m tests.credentials.fleet --database URL --processes 50 --turns 20 --seconds 60

Prints what was seen as JSON. The processes are real ones, forked before anything is opened.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import cast
from uuid import UUID

from chatd.core.errors import Unavailable
from chatd.credentials import NotConnected, NoToken, TokenService
from chatd.oauth.challenge import Challenge
from chatd.outbound import Outbound
from chatd.store.db import Database
from tests.credentials.accounts import Account, account_of, connect
from tests.credentials.rotating import Mood, Rotating, running
from tests.outbound.raw_server import Exchange
from tests.seed import KEYS

REQUESTS_PER_S = 100
"""Of all processes together: what one machine can do beside."""


@dataclass(frozen=True)
class Plan:
    database: str
    processes: int
    turns: int
    seconds: float
    lifetime: float
    mode: str


@dataclass(frozen=True)
class Job:
    """What a process is told."""

    plan: Plan
    server_id: str
    user_id: str
    url: str


@dataclass
class Child:
    pid: int
    tell: int
    hear: int


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--database", required=True)
    parser.add_argument("--processes", type=int, default=5)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--lifetime", type=float, default=2)
    parser.add_argument("--mode", default="steady")
    plan = Plan(**vars(parser.parse_args(arguments)))
    children = [_fork() for _ in range(plan.processes)]
    seen = asyncio.run(_oversee(plan, children))
    for child in children:
        os.waitpid(child.pid, 0)
    print(json.dumps(seen))  # noqa: T201


# --- a process


def _fork() -> Child:
    told, tell = os.pipe()
    hear, said = os.pipe()
    pid = os.fork()
    if pid:
        os.close(told)
        os.close(said)
        return Child(pid, tell, hear)
    os.close(tell)
    os.close(hear)
    try:
        with os.fdopen(told) as pipe:
            job = json.loads(pipe.readline())
        seen = asyncio.run(_work(Job(**job | {"plan": Plan(**job["plan"])})))
        os.write(said, json.dumps(seen).encode() + b"\n")
    except BaseException as error:  # it must not go on as if it were the parent
        print(type(error).__name__, file=sys.stderr)  # noqa: T201
    os._exit(0)


async def _work(job: Job) -> dict[str, int]:
    db = Database(job.plan.database, pool_size=2)
    outbound = Outbound(mcp_allowed=[ip_network("127.0.0.0/8")])
    service = TokenService(db, KEYS, outbound)
    account = await account_of(db, UUID(job.server_id), UUID(job.user_id))
    seen = Counter[str]()
    until = asyncio.get_running_loop().time() + job.plan.seconds
    turn = _Turn(job, service, outbound, account, seen, until)
    await asyncio.gather(*(turn.run() for _ in range(job.plan.turns)))
    await service.close()
    await outbound.aclose()
    await db.close()
    return seen


@dataclass
class _Turn:
    job: Job
    service: TokenService
    outbound: Outbound
    account: Account
    seen: Counter[str]
    until: float

    async def run(self) -> None:
        """As a turn does: asks for a token for each request, and once more after a 401."""
        plan = self.job.plan
        pause_s = plan.processes * plan.turns / REQUESTS_PER_S
        await asyncio.sleep(pause_s * random.random())
        while asyncio.get_running_loop().time() < self.until:
            try:
                await self._request()
            except NotConnected as missing:
                self.seen[missing.reason] += 1
            except (NoToken, Unavailable) as missing:
                self.seen[missing.code] += 1
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))

    async def _request(self) -> None:
        server, principal = self.account.server, self.account.principal
        bearer = await self.service.bearer(server, principal)
        http = self.outbound.mcp_client()
        for attempt in ("first", "second"):
            headers = {"authorization": bearer.header.get_secret_value()}
            answer = await http.get(self.job.url, headers=headers)
            if answer.status_code == 200:
                self.seen["served"] += 1
                return
            self.seen[f"{attempt} 401"] += 1
            newer = await self.service.refused(server, principal, bearer, Challenge())
            if newer is None:
                break
            bearer = newer
        self.seen["refused"] += 1


# --- who sees to it


async def _oversee(plan: Plan, children: list[Child]) -> dict[str, object]:
    db = Database(plan.database, pool_size=2)
    async with running(_Watched(plan.lifetime)) as authority:
        account = await connect(db, authority)
        job = Job(plan, str(account.server.id), str(account.user_id), f"{authority.url}/mcp")
        line = json.dumps(asdict(job)).encode() + b"\n"
        for child in children:
            os.write(child.tell, line)
        async with _trouble(plan, authority, account, children):
            reports = [seen for seen in await asyncio.gather(*map(_heard, children)) if seen]
        row = await account.row()
    await db.close()
    return {
        "refreshes": authority.refreshes,
        "generations": row["generation"] - 1,
        "revocations": authority.revocations,
        "needs_reauth": row["needs_reauth"],
        "processes": len(reports),
        "seen": dict(sum(reports, Counter[str]())),
    }


async def _heard(child: Child) -> Counter[str]:
    """What a process has seen; nothing of one that was killed."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(child.hear, "rb")
    )
    line = await reader.readline()
    return Counter(json.loads(line)) if line else Counter()


class _Watched(Rotating):
    """Remembers from which port it was asked last."""

    asking_port = 0

    async def answer(self, exchange: Exchange) -> None:
        if exchange.path == "/token":
            self.asking_port = exchange.writer.get_extra_info("peername")[1]
        await super().answer(exchange)


@asynccontextmanager
async def _trouble(
    plan: Plan, authority: _Watched, account: Account, children: list[Child]
) -> AsyncGenerator[None]:
    """In the middle of it, if the plan says so."""

    async def trouble() -> None:
        await asyncio.sleep(plan.seconds * 0.3)
        if plan.mode in ("failing", "hanging"):
            authority.mood = cast(Mood, plan.mode)
            await asyncio.sleep(plan.seconds * 0.3)
        elif plan.mode in ("killed", "killed_hurry"):
            authority.mood = "holding"
            await authority.until_asked(authority.asked + 1)
            os.kill(_owner(authority.asking_port, children), signal.SIGKILL)
            authority.let_go.set()
            if plan.mode == "killed_hurry":
                # By the time a lease ends by itself no access token is left.
                await asyncio.sleep(plan.lifetime)
                await account.give_up_lease()
        authority.mood = "well"

    task = asyncio.create_task(trouble())
    yield
    await task


def _owner(port: int, children: list[Child]) -> int:
    """The process that has the local end of a connection to us."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    sockets = {f"socket:[{row[9]}]" for row in rows if row[1].endswith(f":{port:04X}")}
    for child in children:
        for link in Path(f"/proc/{child.pid}/fd").iterdir():
            if os.readlink(link) in sockets:
                return child.pid
    raise LookupError(f"nobody has the port {port}")


if __name__ == "__main__":
    main(sys.argv[1:])
