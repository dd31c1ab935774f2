"""Rows that cannot be read, as the reason why there is no token."""

from collections.abc import Awaitable
from typing import TypeVar

from chatd import logs
from chatd.core.errors import NotFound
from chatd.credentials.failures import NotConnected, NoToken
from chatd.credentials.marking import mark
from chatd.store.db import Database
from chatd.store.oauth_tokens import Unreadable
from chatd.store.secrets import Tampered, UnknownKey

log = logs.get("tokens")

T = TypeVar("T")


async def readable(db: Database, reading: Awaitable[T]) -> T:
    """What cannot be read is as good as lost, but stays: its key may come back. A token is marked,
    so that its user is told."""
    try:
        return await reading
    except Unreadable as token:
        log.warning("a token cannot be read", token=str(token.id), error=str(token))
        await mark(db, token, "tampered", token.message)
        raise NotConnected("tampered") from None
    except (Tampered, UnknownKey) as error:
        log.warning("a token cannot be read", error=str(error))
        raise NotConnected("tampered") from None
    except NotFound:
        raise NoToken("The server is not configured any more.") from None
