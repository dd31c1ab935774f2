"""Without the lease a worker writes nothing."""

from collections.abc import Awaitable, Callable

import pytest

from chatd.core.errors import (
    LeaseLost,
)
from chatd.core.work import Claim
from chatd.store import work
from tests.seed import Seed, answer, planned_call
from tests.store.working import NOTICE, commit_calls, everything, finish, lose, outcome, result


async def step(seed: Seed, claim: Claim) -> None:
    await work.commit_step(
        seed.db, claim, [answer("x", 3, planned_call(1, 3))], [planned_call(1, 3)], [NOTICE], 1.0
    )


async def results(seed: Seed, claim: Claim) -> None:
    messages = [result(1, "stale"), result(2, "stale")]
    await work.commit_results(seed.db, claim, messages, [outcome(1), outcome(2)], [NOTICE])


async def sent(seed: Seed, claim: Claim) -> None:
    await work.mark_sent(seed.db, claim, 1, [1, 2], 1)


async def recorded(seed: Seed, claim: Claim) -> None:
    await work.record_result(seed.db, claim, outcome(1, "done", "stale"))


async def finished(seed: Seed, claim: Claim) -> None:
    await finish(seed, claim, answer("stale", 3))


async def handed_back(seed: Seed, claim: Claim) -> None:
    await work.hand_back(seed.db, claim, [NOTICE])


@pytest.mark.parametrize("owner", ["another worker", "nobody", "a command"])
@pytest.mark.parametrize("write", [step, results, sent, recorded, finished, handed_back])
async def test_without_the_lease_nothing_is_written(
    seed: Seed, write: Callable[[Seed, Claim], Awaitable[None]], owner: str
) -> None:
    claim = await seed.claimed()
    await commit_calls(seed, claim)
    await seed.send(claim.chat_id, "queued")
    if owner == "a command":
        await seed.db.fetch("UPDATE turns SET status = 'cancelled', lease_id = NULL")
    else:
        await lose(seed, claim)
    if owner == "another worker":
        assert (await seed.claim()).turn_id == claim.turn_id
    before = await everything(seed.db)
    with pytest.raises(LeaseLost):
        await write(seed, claim)
    assert await everything(seed.db) == before


async def test_a_lost_lease_is_not_renewed(seed: Seed) -> None:
    claim = await seed.claimed()
    await lose(seed, claim)
    successor = await seed.claim()
    before = await everything(seed.db)
    assert await work.renew_leases(seed.db, [claim]) == {}
    assert await work.owned(seed.db, [claim]) == frozenset()
    assert await everything(seed.db) == before
    assert set(await work.renew_leases(seed.db, [claim, successor])) == {claim.turn_id}
