"""One rotating refresh token in many processes: one refresh for each rotation, nothing refused.

`make tokens` does the same at full size, and with all that can go wrong.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic_settings import BaseSettings, SettingsConfigDict

ROOT = Path(__file__).resolve().parents[2]


class Size(BaseSettings):
    """Of the fleet."""

    model_config = SettingsConfigDict(env_prefix="CHATD_FLEET_")

    processes: int = 5
    turns: int = 10
    seconds: float = 2.5
    lifetime: float = 0.6
    trouble: bool = False


SIZE = Size()


async def fleet(database_url: str, mode: str, **changes: Any) -> dict[str, Any]:
    values = SIZE.model_dump(exclude={"trouble"}) | changes | {"database": database_url}
    options = [part for name, value in values.items() for part in (f"--{name}", str(value))]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.credentials.fleet",
        *options,
        "--mode",
        mode,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    print(mode, found)  # noqa: T201
    return found


async def test_each_rotation_is_one_refresh_and_no_request_is_refused(database_url: str) -> None:
    found = await fleet(database_url, "steady")
    # A busy machine may take so long to send a token that it is over: then it goes out once more.
    assert set(found["seen"]) <= {"served", "first 401"}
    assert found["refreshes"] == found["generations"] > 1
    assert (found["revocations"], found["needs_reauth"]) == (0, None)
    assert found["processes"] == SIZE.processes


async def test_a_process_that_is_killed_between_answer_and_save_costs_one_login(
    database_url: str,
) -> None:
    """Nobody but it knew the new refresh token. The others are told, and none of them ends."""
    found = await fleet(database_url, "killed_hurry", processes=3, turns=4)
    assert found["needs_reauth"] == "refresh_lost"
    assert found["refreshes"] == found["generations"] + 1
    assert (found["revocations"], found["processes"]) == (1, 2)
    assert found["seen"]["served"] > 0
    assert "refused" not in found["seen"]


@pytest.mark.skipif(not SIZE.trouble, reason="a minute each: make tokens")
@pytest.mark.parametrize("mode", ["failing", "hanging", "killed"])
async def test_trouble_costs_errors_and_no_login(database_url: str, mode: str) -> None:
    found = await fleet(database_url, mode, seconds=max(SIZE.seconds, 60))
    if mode == "killed":
        # Until the lease ends a token that is over on its way finds no newer one.
        assert found["seen"].get("refused", 0) < found["seen"]["served"] / 20
        assert found["needs_reauth"] == "refresh_lost"
        assert (found["revocations"], found["refreshes"]) == (1, found["generations"] + 1)
    else:
        assert "refused" not in found["seen"]
        assert (found["revocations"], found["needs_reauth"]) == (0, None)
        assert found["refreshes"] == found["generations"]
