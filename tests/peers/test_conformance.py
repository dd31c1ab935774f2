"""The official conformance suite for MCP clients, what it has on authorization, against chatd."""

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from chatd.store.db import Database
from tests.e2e.fleet import ROOT, Fleet
from tests.peers.programs import newer_node

CLIENT = f"{sys.executable} -m tests.peers.conformance_client"
WITHIN_S = 300
ADMINISTRATORS = 40
AT_ONCE = 8
"""On a busy machine time-outs would decide if all began together, as the suite has it."""
ID_JAG = "identity assertion grants, an extension that chatd does not speak"
OWN_ID = "the suite wants its own fixed client id; ours is the address of our own document"
DPOP = "proof of possession, an extension that chatd does not speak; its tokens are bearer tokens"
WIF = "workload identity: chatd has no platform that vouches for it"


@dataclass(frozen=True)
class Suite:
    package: str
    scenarios: int
    unclaimed: dict[str, str]
    """Why, by the scenario's name. All others are to pass."""


WARNED = {"basic-cimd: cimd-client-id-used": OWN_ID}
"""Why, by scenario and check; no others."""


RELEASED = Suite(
    "@modelcontextprotocol/conformance", 22, {"cross-app-access-complete-flow": ID_JAG}
)
NEXT = Suite(
    "conformance-next",
    33,
    {
        "enterprise-managed-authorization": ID_JAG,
        "dpop": DPOP,
        "dpop-nonce": DPOP,
        "wif-jwt-bearer": WIF,
    },
)


async def _run(
    suite: Suite, fleet: Fleet, packages: Path, folder: Path
) -> subprocess.CompletedProcess[str]:
    program = packages / suite.package / "dist/index.js"
    options = ("client", "--command", CLIENT, "--suite", "all", "-o", folder)
    environment = {
        "PATH": os.defpath,
        "CONFORMANCE_CHATD": fleet.apis[0].url,
        "CONFORMANCE_TOKENS": " ".join(await _administrators(fleet)),
        "CONFORMANCE_TURNS": str(_turns(folder)),
    }
    return await asyncio.to_thread(
        subprocess.run,
        [str(part) for part in (newer_node(), program, *options, "--timeout", WITHIN_S * 1000)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )


def _turns(folder: Path) -> Path:
    turns = folder / "turns"
    turns.mkdir()
    for number in range(AT_ONCE):
        (turns / str(number)).touch()
    return turns


async def _administrators(fleet: Fleet) -> list[str]:
    """Tokens of some new ones, for nobody may try many servers a minute."""
    db = Database(fleet.stack.database_url, pool_size=1)
    first = len(fleet.tokens)
    names = [f"conformance-{number}" for number in range(first, first + ADMINISTRATORS)]
    try:
        for name in names:
            await fleet.enter(db, name, "admin")
    finally:
        await db.close()
    return [fleet.tokens[name] for name in names]


def _checks(folder: Path) -> dict[str, list[dict[str, str]]]:
    """The checks of each scenario of authorization, by its name."""
    files = (folder / "auth").glob("*/checks.json")
    return {_name(file.parent): json.loads(file.read_text()) for file in files}


def _name(folder: Path) -> str:
    """Without the time it began, which has six parts behind it."""
    return folder.name.rsplit("-", 6)[0]


@pytest.mark.timeout(WITHIN_S + 60)
@pytest.mark.parametrize(
    "suite", [pytest.param(RELEASED, id="0.1.16"), pytest.param(NEXT, id="0.2.0-alpha.12")]
)
async def test_every_scenario_of_authorization_that_is_claimed_passes(
    suite: Suite, fleet: Fleet, packages: Path, tmp_path: Path
) -> None:
    done = await _run(suite, fleet, packages, tmp_path)
    checks = _checks(tmp_path)
    assert suite.unclaimed.keys() <= checks.keys()
    claimed = [
        (f"{name}: {check['id']}", check)
        for name, told in checks.items()
        for check in told
        if name not in suite.unclaimed
    ]
    failed = [(at, check) for at, check in claimed if check["status"] == "FAILURE"]
    assert failed == [], done.stdout[-4000:]
    warned = {at for at, check in claimed if check["status"] == "WARNING"}
    assert warned == WARNED.keys()
    assert len(checks) == suite.scenarios
    assert all(checks.values())
