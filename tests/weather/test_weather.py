"""Every moment of a turn in every weather, over real processes.

CHATD_WEATHER=all runs every cell and CHATD_WEATHER=commit those of one moment (faults are chosen
with -k), else each fault meets a few moments, all of them once.
CHATD_WEATHER_SEED, printed with every failure, decides which, and how long after the moment the
fault comes; CHATD_WEATHER_ROUNDS repeats it all with the seeds that follow.
"""

import asyncio
import os
import random
import time
from collections.abc import Sequence

import pytest

from tests.e2e.fleet import Fleet
from tests.waiting import until
from tests.weather.faults import FAULTS, Fault
from tests.weather.ground import Ground, Scene, ground_of
from tests.weather.moments import MOMENTS, Moment
from tests.weather.outcome import Told, as_undisturbed, ended, same_for_all, told

WITHIN_S = 15
"""From the moment the installation is whole again. Only the nightly run judges by the clock: that
of every day shares its machine."""
PATIENCE_S = 60
JITTER_S = 0.4

SEED = int(os.environ.get("CHATD_WEATHER_SEED", "1"))  # noqa: TID251
SEEDS = range(SEED, SEED + int(os.environ.get("CHATD_WEATHER_ROUNDS", "1")))  # noqa: TID251
WANTED = os.environ.get("CHATD_WEATHER", "")  # noqa: TID251


def met(fault: Fault, seed: int) -> Sequence[Moment]:
    """The moments this fault comes at."""
    if WANTED:
        return [moment for moment in MOMENTS if WANTED in ("all", moment.name)]
    shuffled = random.Random(seed).sample(MOMENTS, len(MOMENTS))
    place = FAULTS.index(fault)
    cells = max(len(MOMENTS), len(FAULTS))
    return [shuffled[n % len(MOMENTS)] for n in range(cells) if n % len(FAULTS) == place]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
async def test_turns_end_as_they_should(
    fleet: Fleet, calm: dict[str, Told], fault: Fault, seed: int
) -> None:
    moments = met(fault, seed)
    dice = random.Random(f"{seed} {fault.name}")
    async with ground_of(fleet) as ground:
        await _learn(ground, moments, calm)
        await fault.before(ground)
        ground.gates[0].shut()
        scenes = await _bring(ground, moments)
        await asyncio.sleep(dice.uniform(0, JITTER_S))
        ground.whole_at = time.monotonic()
        await fault.strike(ground)
        mending = asyncio.create_task(fault.mend(ground))
        await ground.release()
        if fault.comes_back:
            await mending
        failures = await asyncio.gather(
            *(
                _cell(ground, moment, scenes[moment.name], calm[moment.name], fault)
                for moment in moments
            ),
            return_exceptions=True,
        )
        await mending
    wrong = [
        f"seed {seed}, {moment.name} x {fault.name}: {type(failure).__name__}: {failure}"
        for moment, failure in zip(moments, failures, strict=True)
        if failure is not None
    ]
    assert not wrong, "\n\n".join([*wrong, *_said(fleet)])


async def _bring(ground: Ground, moments: Sequence[Moment]) -> dict[str, Scene]:
    """Those that last as long as we like come first, so that all are there at once."""
    scenes: dict[str, Scene] = {}
    for steady in (True, False):
        group = [moment for moment in moments if moment.steady is steady]
        async with asyncio.TaskGroup() as tasks:
            brought = [tasks.create_task(moment.bring(ground)) for moment in group]
        scenes |= {moment.name: task.result() for moment, task in zip(group, brought, strict=True)}
    for name, scene in scenes.items():
        assert await ended(ground, scene.posted[-1]) is None, f"{name}: the moment has passed"
    return scenes


def _said(fleet: Fleet) -> list[str]:
    """What the youngest processes complained of."""
    return [
        f"{name}: {line.decode()[:600]}"
        for name, log in sorted(fleet.logs().items())[-3:]
        for line in log.splitlines()
        if b'"level":"error"' in line or b'"level":"warning"' in line
    ]


async def _learn(ground: Ground, moments: Sequence[Moment], calm: dict[str, Told]) -> None:
    """What these moments' turns say without any weather."""

    async def run(moment: Moment) -> None:
        scene = await moment.start(ground)
        await ground.release()
        await moment.act(ground, scene)
        for posted in scene.posted:
            assert (await ground.member.ended(posted))["status"] == "completed"
        calm[moment.name] = await told(ground, scene)

    async with asyncio.TaskGroup() as tasks:
        for moment in moments:
            if moment.name not in calm:
                tasks.create_task(run(moment))
    for scene in ground.scenes:
        await scene.reader.close()
    ground.scenes.clear()


async def _cell(ground: Ground, moment: Moment, scene: Scene, calm: Told, fault: Fault) -> None:
    """One moment in one weather."""
    await moment.act(ground, scene)
    for posted in scene.posted:
        turn = await until(lambda posted=posted: ended(ground, posted), PATIENCE_S)
        took_s = time.monotonic() - ground.whole_at
        assert not WANTED or took_s < WITHIN_S + moment.own_s, f"it took {took_s:.1f} s"
        assert (turn["status"], turn["error"]) == ("completed", None), turn
    await moment.afterwards(ground, scene)
    await as_undisturbed(ground, scene, calm, may_lose=fault.loses_worker)
    await same_for_all(ground, scene)
