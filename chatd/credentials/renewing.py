"""Renewing a token in its row: one at a time in the fleet, nothing lost that was handed out."""

import asyncio
import contextvars
from dataclasses import replace
from typing import Literal
from uuid import UUID

from chatd import logs, telemetry
from chatd.core.errors import ChatdError, Unavailable
from chatd.core.oauth import DOUBTFUL, Grant, ReauthReason, StoredToken
from chatd.credentials.failures import Elsewhere, NotConnected, NoToken, Unclear
from chatd.credentials.marking import mark
from chatd.credentials.pauses import Pauses
from chatd.credentials.reading import readable
from chatd.credentials.source import Source
from chatd.oauth.errors import Refused, Unreachable
from chatd.store.db import Database
from chatd.store.oauth_tokens import (
    Lease,
    read_token,
    release,
    save_refresh,
    take_lease,
)
from chatd.store.secrets import KeyRing

REQUEST_S = 10.0
SAVE_S = 60.0
"""How long a token that is not saved yet is held on to while PostgreSQL is away."""
POLL_S = 0.05
MAX_POLL_S = 0.5
"""A hanging server must not have every process of the fleet ask PostgreSQL all the time."""
LATE_S = 0.5
"""For whoever lost the lease with an answer in hand, as when PostgreSQL has just come back: to ask
with a refresh token that is spent would end the login."""
FLEET_PAUSE_S = 2.0
"""Others that have no token to go on with wait for this pause, so it is short."""

Outcome = ReauthReason | Literal["renewed", "unreachable", "refused", "failed", "not_connected"]

log = logs.get("tokens")


class Renewals:
    """One per process. Whoever wants the same token renewed shares the task that does it, and
    being cancelled ends nobody's but their own wait."""

    def __init__(
        self,
        db: Database,
        keys: KeyRing,
        *,
        pauses: Pauses,
        request_s: float = REQUEST_S,
    ) -> None:
        self._db = db
        self._keys = keys
        self._pauses = pauses
        self._request_s = request_s
        self._tasks: dict[UUID, asyncio.Task[StoredToken]] = {}

    def begin(self, source: Source, server_url: str, token: StoredToken) -> None:
        """Renew it behind the caller's back, unless another process does."""
        self._task(source, server_url, token, patient=False)

    async def renewed(self, source: Source, server_url: str, token: StoredToken) -> StoredToken:
        """The next generation, whoever asks for it. Raises NoToken, Unavailable."""
        try:
            return await asyncio.shield(self._task(source, server_url, token, patient=True))
        except Elsewhere:
            # That one was not going to wait for another process.
            return await asyncio.shield(self._task(source, server_url, token, patient=True))

    async def close(self) -> None:
        """Waits for what has been asked for: an answer that nobody saves is a login lost."""
        if self._tasks:
            await asyncio.wait(set(self._tasks.values()), timeout=2 * self._request_s)

    def _task(
        self, source: Source, server_url: str, token: StoredToken, *, patient: bool
    ) -> "asyncio.Task[StoredToken]":
        task = self._tasks.get(token.id)
        if task is None:
            # An empty context: it belongs to no turn.
            task = asyncio.create_task(
                self._renew(source, server_url, token, patient=patient),
                name=f"renew token {token.id}",
                context=contextvars.Context(),
            )
            self._tasks[token.id] = task
            task.add_done_callback(lambda done: self._ended(token.id, done))
        return task

    def _ended(self, token_id: UUID, task: "asyncio.Task[StoredToken]") -> None:
        del self._tasks[token_id]
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, ChatdError):
            # Nobody may be waiting for it.
            log.error("token not renewed", token=str(token_id), error=type(error).__name__)

    async def _renew(
        self, source: Source, server_url: str, token: StoredToken, *, patient: bool
    ) -> StoredToken:
        lease = await self._lease(token, patient=patient)
        if not isinstance(lease, Lease):
            return lease
        began = asyncio.get_running_loop().time()
        try:
            with telemetry.TOKEN_REFRESH_SECONDS.time():
                async with asyncio.timeout(self._request_s):
                    grant = await source.ask(server_url, token)
        except Refused as refused:
            return await self._refused(source, token, lease, refused)
        except NotConnected as lost:
            await release(self._db, token.id, lease.id, error=lost.reason)
            _count(lost.reason)
            raise
        except Unreachable as away:
            return await self._kept(token, lease, away.reason)
        except TimeoutError:
            return await self._kept(token, lease, "no answer in time")
        except ChatdError as error:
            return await self._kept(token, lease, error.code)
        except Exception as error:
            # A defect of ours must not cost the user more than this attempt.
            return await self._kept(token, lease, type(error).__name__, outcome="failed")
        took = asyncio.get_running_loop().time() - began
        return await self._saved(source, server_url, token, lease, _shortened(grant, took))

    async def _lease(self, token: StoredToken, *, patient: bool) -> Lease | StoredToken:
        """The lease, or what another process has made of the token since it was read."""
        loop = asyncio.get_running_loop()
        until, wait_s = loop.time() + self._request_s, POLL_S
        while True:
            lease = await take_lease(self._db, token.id, generation=token.generation)
            if lease is not None:
                return await self._taken_over(token, lease) if lease.left_behind else lease
            current = await self._read(token)
            if current is None:
                raise NotConnected("not_connected")
            if current.generation != token.generation or current.needs_reauth:
                return current
            if not patient:
                raise Elsewhere
            if loop.time() > until:
                raise NoToken("another process has not renewed the token in time")
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 1.5, MAX_POLL_S)

    async def _taken_over(self, token: StoredToken, lease: Lease) -> Lease | StoredToken:
        """The lease, or what somebody who was thought lost has made of the token after all."""
        await asyncio.sleep(LATE_S)
        current = await self._read(token)
        if current is None:
            raise NotConnected("not_connected")
        if current.generation == token.generation and current.needs_reauth is None:
            return lease
        await release(self._db, token.id, lease.id, error="")
        return current

    async def _saved(
        self, source: Source, server_url: str, token: StoredToken, lease: Lease, grant: Grant
    ) -> StoredToken:
        """Until it is saved nobody may use it: the refresh token before it may be spent."""
        loop = asyncio.get_running_loop()
        answered = loop.time()
        while True:
            aged = _shortened(grant, loop.time() - answered)
            try:
                saved = await save_refresh(self._db, self._keys, token, lease.id, aged)
                break
            except Unavailable:
                if loop.time() - answered > SAVE_S:
                    log.error("a renewed token could not be saved", token=str(token.id))
                    raise
                await asyncio.sleep(POLL_S)
        if saved is None:
            # Overtaken, or the first try was committed although it did not look like it.
            saved = await self._read(token)
        if saved is None or (saved.needs_reauth and saved.needs_reauth not in DOUBTFUL):
            await source.give_back(server_url, token, grant)
        if saved is None:
            raise NotConnected("not_connected")
        self._pauses.worked(token.id)
        _count("renewed")
        return saved

    async def _refused(
        self, source: Source, token: StoredToken, lease: Lease, refused: Refused
    ) -> StoredToken:
        reason = await source.lost(token, refused)
        if reason is None:
            unclear = source.of_user and not refused.client
            return await self._kept(token, lease, refused.error, outcome="refused", unclear=unclear)
        if reason == "invalid_grant" and lease.left_behind:
            reason = "refresh_lost"
        return await self._lost(token, reason, refused.error)

    async def _kept(
        self,
        token: StoredToken,
        lease: Lease,
        error: str,
        *,
        outcome: Outcome = "unreachable",
        unclear: bool = False,
    ) -> StoredToken:
        """Nothing is lost by this; it is tried again a little later."""
        _count(outcome)
        pause_s = self._pauses.failed(token.id, error)
        log.warning("token not renewed", token=str(token.id), error=error)
        await release(
            self._db, token.id, lease.id, error=error, pause_s=min(pause_s, FLEET_PAUSE_S)
        )
        if unclear:
            raise Unclear(error)
        raise NoToken(f"The token could not be renewed: {error}.")

    async def _read(self, token: StoredToken) -> StoredToken | None:
        return await readable(self._db, read_token(self._db, self._keys, token.id))

    async def _lost(self, token: StoredToken, reason: ReauthReason, error: str) -> StoredToken:
        """For good, unless somebody else has a newer one by now."""
        _count(reason)
        if not await mark(self._db, token, reason, error):
            current = await self._read(token)
            if current is not None:
                return current
        raise NotConnected(reason)


def _count(outcome: Outcome) -> None:
    telemetry.labelled(telemetry.TOKEN_REFRESHES, outcome).inc()


def _shortened(grant: Grant, seconds: float) -> Grant:
    """Its lifetime began when the server made it, at the latest when we began to wait for it."""
    if grant.expires_in_s is None:
        return grant
    return replace(grant, expires_in_s=max(grant.expires_in_s - seconds, 0.0))
