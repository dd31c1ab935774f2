"""Rows that cannot be read, as the reason why there is no token."""

from collections.abc import Awaitable
from typing import TypeVar

from chatd import logs
from chatd.core.errors import NotFound
from chatd.credentials.failures import NotConnected, NoToken
from chatd.store.secrets import Tampered, UnknownKey

log = logs.get("tokens")

T = TypeVar("T")


async def readable(reading: Awaitable[T]) -> T:
    """What cannot be read is as good as lost, but stays: its key may come back."""
    try:
        return await reading
    except (Tampered, UnknownKey) as error:
        log.warning("a token cannot be read", error=str(error))
        raise NotConnected("tampered") from None
    except NotFound:
        raise NoToken("The server is not configured any more.") from None
