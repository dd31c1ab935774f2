"""Logins that nobody uses, kept alive where refresh tokens end by disuse."""

import asyncio
import random

from chatd import logs
from chatd.core.errors import Unavailable
from chatd.credentials.failures import NoToken
from chatd.credentials.tokens import TokenService
from chatd.store.db import Database
from chatd.store.oauth_tokens import Unreadable, take_due

EVERY_S = 600.0
BATCH = 100

log = logs.get("tokens")


class Keeper:
    """A task in every worker; the lease in the row sees to it that each token is renewed once."""

    def __init__(self, db: Database, tokens: TokenService, *, days: float) -> None:
        """`days`: how long a login may be left alone; 0: for ever, and `run` returns at once."""
        self._db = db
        self._tokens = tokens
        self._days = days

    async def run(self) -> None:
        while self._days > 0:
            # Workers that start together do not ask together.
            await asyncio.sleep(EVERY_S * random.uniform(0.5, 1.5))
            try:
                await self.round()
            except Unavailable:
                pass
            except Exception as error:
                log.exception("idle logins were not kept", error=type(error).__name__)

    async def round(self) -> int:
        """How many were renewed; one at a time, as nobody waits. Raises Unavailable."""
        renewed = 0
        for token_id in await take_due(self._db, days=self._days, limit=BATCH):
            try:
                await self._tokens.keep(token_id, days=self._days)
                renewed += 1
            except (NoToken, Unreadable) as missing:
                # Not marked: nobody asked for it, and what is marked is not kept any more.
                log.info("an idle login was not renewed", token=str(token_id), error=missing.code)
        return renewed
