"""The official conformance suite for MCP clients, what it has on authorization, against chatd."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

from chatd.store.db import Database
from tests.e2e.fleet import ROOT, Fleet
from tests.peers.programs import newer_node

CLIENT = f"{sys.executable} -m tests.peers.conformance_client"
WITHIN_S = 120
SCENARIOS = 22
UNCLAIMED = {"cross-app-access-complete-flow"}
"""Identity assertion grants (ID-JAG): an extension that chatd does not speak."""


async def _run(fleet: Fleet, packages: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    program = packages / "@modelcontextprotocol/conformance/dist/index.js"
    suite = ("client", "--command", CLIENT, "--suite", "all", "-o", folder)
    environment = {
        "PATH": os.defpath,
        "CONFORMANCE_CHATD": fleet.apis[0].url,
        "CONFORMANCE_TOKENS": " ".join(await _administrators(fleet)),
    }
    return await asyncio.to_thread(
        subprocess.run,
        [str(part) for part in (newer_node(), program, *suite, "--timeout", str(WITHIN_S * 1000))],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )


async def _administrators(fleet: Fleet) -> list[str]:
    """Tokens of some, for nobody may try many servers a minute."""
    db = Database(fleet.stack.database_url, pool_size=1)
    try:
        names = [f"conformance-{number}" for number in range(8)]
        for name in names:
            await fleet.enter(db, name, "admin")
    finally:
        await db.close()
    return [fleet.tokens[name] for name in names]


def _checks(folder: Path) -> dict[str, list[dict[str, str]]]:
    """The checks of each scenario of authorization, by its name and the time it began."""
    files = (folder / "auth").glob("*/checks.json")
    return {file.parent.name: json.loads(file.read_text()) for file in files}


async def test_every_scenario_of_authorization_passes(
    fleet: Fleet, packages: Path, tmp_path: Path
) -> None:
    done = await _run(fleet, packages, tmp_path)
    checks = _checks(tmp_path)
    failed = [
        f"{name}: {check['id']} {check.get('errorMessage', '')}"
        for name, told in checks.items()
        for check in told
        if check["status"] == "FAILURE" and not any(part in name for part in UNCLAIMED)
    ]
    assert failed == [], done.stdout[-4000:]
    assert len(checks) == SCENARIOS
