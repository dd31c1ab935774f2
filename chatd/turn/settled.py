"""Writes that a cancellation does not cut short."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def settled(write: Coroutine[Any, Any, T]) -> T:
    """Cancelled meanwhile, it waits for the write and then raises: no outcome stays unknown."""
    task = asyncio.create_task(write)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()
        raise
