"""A write is ended before its cancellation goes on."""

import asyncio

import pytest

from chatd.turn.settled import settled


async def test_what_a_write_answers_or_raises_is_passed_on() -> None:
    async def fine() -> int:
        return 3

    async def broken() -> None:
        raise LookupError

    assert await settled(fine()) == 3
    with pytest.raises(LookupError):
        await settled(broken())


@pytest.mark.parametrize("fails", [False, True])
async def test_a_cancelled_write_ends_first(*, fails: bool) -> None:
    began, may_end, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def write() -> None:
        began.set()
        await may_end.wait()
        ended.set()
        if fails:
            raise LookupError

    task = asyncio.create_task(settled(write()))
    await began.wait()
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
