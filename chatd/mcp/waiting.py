"""Waiting for an answer with a deadline outside the SDK: what comes too late is abandoned."""

import asyncio
from typing import Any

from chatd.mcp.errors import ServerFailed
from chatd.mcp.exchange import Exchange
from chatd.mcp.verdict import verdict

READ_SLACK_S = 5.0
"""The connection of an abandoned request is given up this much later than the request."""

_abandoned: set[asyncio.Task[dict[str, Any]]] = set()
"""Only to keep them alive: the SDK may still be telling the server."""


async def answer(
    task: asyncio.Task[dict[str, Any]],
    exchange: Exchange,
    *,
    idle_s: float,
    absolute_s: float,
) -> dict[str, Any]:
    """The task's result; `idle_s` counts from the server's last sign, `absolute_s` from now.

    Raises ServerFailed, and what our side raised when it was asked. Cancellation is passed on at
    once; the server is told in the background.
    """
    clock = exchange.clock
    clock.start()
    try:
        while not task.done() and exchange.error is None:
            left = clock.left(idle_s, absolute_s)
            if left is not None and left <= 0:
                message = f"no answer came within {clock.elapsed_s:.3g} s"
                raise ServerFailed("timeout", message, unknown=exchange.stage == "sent")
            waits = {task, *clock.questions}
            await asyncio.wait(waits, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if exchange.error is not None:
            raise exchange.error
    except BaseException:
        _abandon(task, exchange)
        raise
    finally:
        clock.close()
    if task.cancelled():
        raise verdict(asyncio.CancelledError(), exchange)
    error = task.exception()
    if error is not None:
        raise verdict(error, exchange)
    return task.result()


def _abandon(task: asyncio.Task[dict[str, Any]], exchange: Exchange) -> None:
    exchange.over = True
    task.cancel()
    _abandoned.add(task)
    task.add_done_callback(_reaped)


def _reaped(task: asyncio.Task[dict[str, Any]]) -> None:
    _abandoned.discard(task)
    if not task.cancelled():
        task.exception()
