"""One server at a time per folder: a file lock that the server itself keeps while it lives."""

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path


class InUse(RuntimeError):
    """Another process works on this folder."""


@asynccontextmanager
async def hold(file: Path, *, within: float = 0.0) -> AsyncGenerator[int]:
    """The descriptor of the locked file. A child that inherits it holds the lock until it ends.

    `within` is how long to wait for the last owner: one that was left behind by a killed parent
    is on its way out.
    """
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        await _lock(descriptor, file, within)
        yield descriptor
    finally:
        os.close(descriptor)


async def _lock(descriptor: int, file: Path, within: float) -> None:
    deadline = time.monotonic() + within
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise InUse(f"{file.parent} is in use by another process") from None
        await asyncio.sleep(0.01)
