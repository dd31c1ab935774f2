"""What chatd adds to a plain turn, without the peers' harness: the same model with and without."""

from bench.asking import repeat, show
from bench.system import busy_s, own_s, running

CONCURRENCY = (1, 16, 64)
TURNS = 300
WARM_UP = 30


async def compare(turns: int = TURNS) -> str:
    """The table of chatd against the model itself, both asked by the same client."""
    rows: list[tuple[object, ...]] = []
    async with running() as system:
        await repeat(system.turn, turns=WARM_UP)
        await repeat(system.direct, turns=WARM_UP)
        for at_once in CONCURRENCY:
            direct = await repeat(system.direct, at_once=at_once, turns=turns)
            cpu, busy, own = system.cpu_ms(), busy_s(), own_s()
            ours = await repeat(system.turn, at_once=at_once, turns=turns)
            others = max(0.0, (busy_s() - busy) - (own_s() - own)) / ours.wall_s
            cost = (system.cpu_ms() - cpu) / turns
            added = ours.first_ms() - direct.first_ms()
            rows += [
                ("direct", at_once, direct.rate, direct.first_ms(), "-", "-", "-"),
                ("chatd", at_once, ours.rate, ours.first_ms(), added, cost, others),
            ]
    columns = ("system", "at once", "turns/s", "first token p50 ms", "added ms", "CPU ms/turn")
    return show("Plain turns against the model itself", (*columns, "others' cores"), rows)
