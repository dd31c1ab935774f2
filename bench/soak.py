"""`make soak`: a fleet at capacity for half an hour, random faults, and what must hold afterwards.

Every accepted turn has ended, no unsafe call ran twice, and the memory of processes that lived
through it all is flat. The seed is printed: the same one brings the same faults at the same times.
"""

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import psutil

from bench.soak_faults import FAULTS
from chatd.store.db import Database
from tests.e2e.client import Client, call, message
from tests.e2e.fleet import Fleet, registered

WORKERS, CAPACITY = 2, 8
CLIENTS = WORKERS * CAPACITY + 4
"""A few more than there are slots: something always waits."""
FAULT_EVERY_S = (15.0, 30.0)
SAMPLE_S = 2.0
PATIENCE_S = 90.0
MIB = 1 << 20
GROWTH_MIB, GROWTH_SHARE = 12.0, 0.06
"""What a process may have grown from the first to the last third after the warm-up."""

UNENDED = "SELECT count(*) AS turns FROM turns WHERE finished_at IS NULL"
ENDED = "SELECT status, error->>'kind' AS kind, count(*) AS turns FROM turns GROUP BY 1, 2"
CALLS = "SELECT state, count(*) AS calls FROM tool_calls GROUP BY 1"
DONE = """
SELECT arguments::json->>'text' AS text FROM tool_calls
WHERE tool_name LIKE '%\\_\\_append' AND state = 'done'
"""
LOST = "SELECT unnest($1::uuid[]) EXCEPT SELECT id FROM turns"

Row = tuple[str, object]


@dataclass
class Soak:
    """What goes on, and what is remembered of it."""

    fleet: Fleet
    careful: str
    seed: int
    dice: random.Random
    until: float
    accepted: list[str] = field(default_factory=list[str])
    faults: Counter[str] = field(default_factory=Counter[str])
    rss: dict[str, list[float]] = field(default_factory=dict[str, list[float]])

    @property
    def over(self) -> bool:
        return time.monotonic() > self.until


async def talk(soak: Soak, number: int) -> None:
    """One user who always has a turn under way."""
    dice = random.Random(f"{number} of {soak.seed}")
    doors = Doors(soak.fleet, dice)
    while not soak.over:
        script, fields, act = _something(soak, dice)
        chat = await _post(soak, doors, "/chats", message(*script, **fields))
        path = f"/chats/{chat['id']}"
        if dice.random() < 0.3:
            await _post(soak, doors, f"{path}/messages", message("/long 20 20"))
        await _follow(doors, path, chat["turn"]["id"], act)
    await doors.close()


class Doors:
    """One user's connections to every front door there is."""

    def __init__(self, fleet: Fleet, dice: random.Random) -> None:
        self._fleet = fleet
        self._dice = dice
        self._clients: dict[str, Client] = {}

    async def ask(self, method: str, path: str, **more: Any) -> httpx2.Response | None:
        """At any of them; None when the connection broke."""
        url = self._dice.choice(self._fleet.apis).url
        client = self._clients.setdefault(url, Client(url, self._fleet.tokens["max"]))
        try:
            return await client.http.request(method, path, **more)
        except httpx2.HTTPError:
            return None

    async def close(self) -> None:
        for client in self._clients.values():
            await client.http.aclose()


def _something(soak: Soak, dice: random.Random) -> tuple[Sequence[str], dict[str, Any], str]:
    token = uuid4().hex
    kinds: list[tuple[Sequence[str], dict[str, Any], str]] = [
        ([f"plain {token}", "/long 60 20"], {}, ""),
        ([call("demo__add", a=2, b=3), call("demo__slow", seconds=1), "/say added"], {}, ""),
        ([call("demo__append", text=token), "/say appended"], {}, ""),
        ([f"again {token}", "/fail 503 1 1", "/say after all"], {}, ""),
        ([f"stop {token}", "/long 400 20"], {}, "interrupt"),
        (
            [call("careful__append", text=token), "/say approved"],
            {"mcp_server_ids": [soak.careful]},
            "approve",
        ),
    ]
    return dice.choice(kinds)


async def _post(soak: Soak, doors: Doors, path: str, body: Any) -> Any:
    """Until it is accepted, once: a lost answer is asked for again with the same key."""
    key = {"Idempotency-Key": uuid4().hex}
    while True:
        answer = await doors.ask("POST", path, json=body, headers=key)
        if answer is not None and answer.status_code == 201:
            body = answer.json()
            soak.accepted.append(body["turn"]["id"])
            return body
        await asyncio.sleep(0.3)


async def _follow(doors: Doors, path: str, turn_id: str, act: str) -> None:
    """Ask after the turn until it is over, and do what it waits for."""
    began = time.monotonic()
    while time.monotonic() - began < PATIENCE_S:
        answer = await doors.ask("GET", f"{path}/turns/{turn_id}")
        turn = answer.json() if answer is not None and answer.status_code == 200 else {}
        if turn.get("finished_at"):
            return
        for item in turn.get("open_items") or ():
            decision = {"decision": "approve"}
            await doors.ask("POST", f"{path}/approvals/{item['id']}", json=decision)
        if act == "interrupt" and turn.get("status") == "running":
            await doors.ask("POST", f"{path}/interrupt", json={"turn_id": turn_id})
        await asyncio.sleep(0.25)


async def misfortune(soak: Soak) -> None:
    """One fault after the other; the last one leaves time to recover."""
    while not soak.over:
        await asyncio.sleep(soak.dice.uniform(*FAULT_EVERY_S))
        name = soak.dice.choice(list(FAULTS))
        if not soak.over:
            soak.faults[name] += 1
            sys.stdout.write(f"{time.strftime('%H:%M:%S')} {name}\n")
            sys.stdout.flush()
            await FAULTS[name](soak.fleet)


async def measure(soak: Soak) -> None:
    """Memory of those that nobody kills: the first front door and the first worker."""
    watched = {
        "api": psutil.Process(soak.fleet.apis[0].child.pid),
        "worker": psutil.Process(soak.fleet.workers[0].child.pid),
    }
    while not soak.over:
        for name, process in watched.items():
            soak.rss.setdefault(name, []).append(process.memory_info().rss / MIB)
        await asyncio.sleep(SAMPLE_S)


def growth(samples: Sequence[float]) -> tuple[float, float]:
    """MiB in the first third after a warm-up of a quarter, and in the last third."""
    warm = samples[len(samples) // 4 :]
    third = max(1, len(warm) // 3)
    first, last = sorted(warm[:third]), sorted(warm[-third:])
    return first[len(first) // 2], last[len(last) // 2]


async def verdict(soak: Soak, db: Database) -> tuple[list[Row], list[str]]:
    """What there was, and what is wrong with it."""
    wrong: list[str] = []
    rows: list[Row] = [("accepted turns", len(soak.accepted)), ("faults", dict(soak.faults))]
    lost = await db.fetch(LOST, soak.accepted)
    if lost:
        wrong.append(f"{len(lost)} accepted turns are not there")
    waiting = await _all_ended(db)
    if waiting:
        wrong.append(f"{waiting} turns have not ended")
    for row in await db.fetch(ENDED):
        rows.append((f"{row['status']} {row['kind'] or ''}".strip(), row["turns"]))
        if row["status"] not in ("completed", "interrupted"):
            wrong.append(f"{row['turns']} turns ended {row['status']} {row['kind'] or ''}")
    rows += [(f"calls {row['state']}", row["calls"]) for row in await db.fetch(CALLS)]
    wrong += _calls_made(soak, [row["text"] for row in await db.fetch(DONE)])
    for name, samples in soak.rss.items():
        first, last = growth(samples)
        rows.append((f"{name} MiB, then and now", f"{first:.1f} -> {last:.1f}"))
        if last - first > max(GROWTH_MIB, GROWTH_SHARE * first):
            wrong.append(f"the memory of {name} grew from {first:.1f} to {last:.1f} MiB")
    return rows, wrong


async def _all_ended(db: Database) -> int:
    """How many turns have not, after all the time they could need."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        (row,) = await db.fetch(UNENDED)
        if not row["turns"] or time.monotonic() > deadline:
            return row["turns"]
        await asyncio.sleep(0.5)


def _calls_made(soak: Soak, done: Sequence[str]) -> list[str]:
    """Each line of the demo server's journal is one run of its unsafe tool."""
    file = soak.fleet.folder / "logs" / "demo-journal.txt"
    ran = Counter(file.read_text().splitlines() if file.exists() else ())
    wrong = [f"an unsafe call ran {times} times" for times in ran.values() if times > 1]
    missing = sum(not ran[text] for text in done)
    return wrong + ([f"{missing} calls are journaled as done and never ran"] if missing else [])


def _folder() -> Path:
    """Open to the user that PostgreSQL runs as when we are root."""
    folder = Path(tempfile.mkdtemp(prefix="chatd-soak-"))
    folder.chmod(0o711)
    return folder


@asynccontextmanager
async def soaking(seed: int, minutes: float) -> AsyncGenerator[Soak]:
    folder = _folder()
    fleet = await Fleet.start(folder / "fleet")
    try:
        for _ in range(WORKERS):
            await fleet.worker(CAPACITY)
        await fleet.api()
        async with (
            fleet.admin() as admin,
            registered(admin, "careful", fleet.demo_url, require_approval="always") as made,
        ):
            until = time.monotonic() + minutes * 60
            yield Soak(fleet, made["id"], seed, random.Random(seed), until)
    finally:
        await fleet.close()
        shutil.rmtree(folder)


async def run(seed: int, minutes: float) -> int:
    async with soaking(seed, minutes) as soak:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(measure(soak))
            tasks.create_task(misfortune(soak))
            for number in range(CLIENTS):
                tasks.create_task(talk(soak, number))
        db = Database(soak.fleet.stack.database_url, pool_size=1)
        rows, wrong = await verdict(soak, db)
        await db.close()
    width = max(len(name) for name, _ in rows)
    table = "".join(f"{name:<{width}}  {value}\n" for name, value in rows)
    sys.stdout.write(table + "".join(f"WRONG: {what}\n" for what in wrong))
    return 1 if wrong else 0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    options = parser.parse_args()
    sys.stdout.write(f"seed {options.seed}, {options.minutes:g} minutes\n")
    raise SystemExit(asyncio.run(run(options.seed, options.minutes)))


if __name__ == "__main__":
    main()
