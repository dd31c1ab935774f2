"""The rules hold in every random sequence of commands, on the real database.

CHATD_MACHINE_SEEDS asks for more sequences than the few of every day, from CHATD_MACHINE_SEED on.
"""

import os

import pytest

from tests.machine.walk import ACTIONS, walk
from tests.machine.world import World
from tests.seed import Seed

FIRST = int(os.environ.get("CHATD_MACHINE_SEED", "1"))  # noqa: TID251
SEEDS = range(FIRST, FIRST + int(os.environ.get("CHATD_MACHINE_SEEDS", "8")))  # noqa: TID251
STEPS = 150


@pytest.mark.parametrize("number", SEEDS)
async def test_the_rules_hold_whatever_happens(seed: Seed, number: int) -> None:
    done = await walk(World(seed), number, STEPS)
    assert len(set(done)) > len(ACTIONS) / 2, "the walk stood still"
