"""The token service: one function that hands out a usable token, or says why there is none."""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from secrets import token_bytes
from uuid import UUID

from chatd.core.errors import Unavailable
from chatd.core.oauth import Bearer, Client, StoredToken
from chatd.core.servers import McpAuth, McpServer, Principal, UserAuth
from chatd.credentials.doubts import Doubts
from chatd.credentials.failures import NotConnected, NoToken
from chatd.credentials.firsts import Firsts
from chatd.credentials.header import bearer_of
from chatd.credentials.marking import mark
from chatd.credentials.pauses import Pauses
from chatd.credentials.reading import readable
from chatd.credentials.renewing import REQUEST_S, Renewals
from chatd.credentials.source import Kit, Source
from chatd.credentials.sources import SOURCES
from chatd.credentials.timing import PAUSE_S, Age, age_of, share_of
from chatd.oauth.challenge import Challenge
from chatd.outbound import Outbound
from chatd.store.chat_servers import load_server
from chatd.store.db import Database
from chatd.store.oauth_tokens import read_token, touch, want_scopes
from chatd.store.secrets import KeyRing

TOUCH_S = 60.0
MAX_REMEMBERED = 10_000
SAFE_S = 2.0
"""With less time left a token is used only where renewing it has failed."""
TRIES = 3
"""On a machine that is too busy a token may be over by the time somebody looks at it."""
INSUFFICIENT = "insufficient_scope"
INVALID = "invalid_token"
"""What a server calls a token that will never be good again (RFC 6750, section 3.1)."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How long the service waits for others."""

    request_s: float = REQUEST_S
    pause_s: float = PAUSE_S


class TokenService:
    """One per process. Every token is read from its row when it is asked for, so that nobody is
    given one that was revoked, replaced or renewed elsewhere.

    `login`: as whom users' logins are renewed.
    """

    def __init__(
        self,
        db: Database,
        keys: KeyRing,
        outbound: Outbound,
        *,
        login: Client | None = None,
        pace: Pace | None = None,
    ) -> None:
        pace = pace or Pace()
        self._db = db
        self._keys = keys
        self._process = token_bytes(16)
        self._pauses = Pauses(self._process, pace.pause_s)
        self._renewals = Renewals(db, keys, pauses=self._pauses, request_s=pace.request_s)
        kit = Kit(db, keys, outbound, login)
        self._sources = tuple(source(kit, self._usable) for source in SOURCES)
        self._firsts = Firsts(db, self._pauses)
        self._touched: dict[UUID, float] = {}
        self._doubts = Doubts(db, keys)
        self._wanted: set[tuple[UUID, str]] = set()

    def serves(self, auth: McpAuth) -> bool:
        """Whether requests with these credentials carry a token of this service."""
        return any(source.serves(auth) for source in self._sources)

    async def bearer(self, server: McpServer, principal: Principal) -> Bearer:
        """What to send now. Raises NotConnected, NoToken, Unavailable."""
        source = self._source(server.auth)
        if not source.carries(server.url):
            raise NoToken("A login's token is never sent without encryption.")
        token = await self._usable(source, server, principal)
        await self._touch(token.id)
        return bearer_of(token)

    async def refused(
        self,
        server: McpServer,
        principal: Principal,
        bearer: Bearer,
        challenge: Challenge,
        *,
        in_session: bool = False,
    ) -> Bearer | None:
        """After a 401: a newer token than the one that was sent, if there is one to be had.

        `in_session`: it may be the session that is over, so nothing is known of the connection.
        """
        if challenge.error == INSUFFICIENT:
            # Meant as a 403: a newer token may do no more.
            await self.lacks_scope(server, bearer, challenge)
            return None
        source = self._source(server.auth)
        try:
            current = await self._find(source, server, principal)
            if current is None or current.needs_reauth is not None:
                return None
            if _sent(bearer, current):
                if self._doubts.is_futile(server, current.id):
                    await self.refused_again(server, principal, bearer, in_session=in_session)
                    return None
                final = not in_session and _is_final(challenge)
                current = await self._instead(source, server, current, final=final)
            elif self._age(source, current) == "over":
                current = await self._usable(source, server, principal)
        except (NoToken, Unavailable):
            return None
        if _sent(bearer, current) or current.needs_reauth is not None:
            return None
        return bearer_of(current)

    async def _instead(
        self, source: Source, server: McpServer, token: StoredToken, *, final: bool
    ) -> StoredToken:
        """The token that follows a refused one; the same when nothing can follow it."""
        if source.renewable(token):
            try:
                return await self._renewed(source, server.url, token)
            except NoToken as missing:
                await self._doubts.not_renewed(token, missing)
                raise
        if final and source.one_server:
            await self._doubts.unauthorized(source, token)
        return token

    async def refused_again(
        self, server: McpServer, principal: Principal, bearer: Bearer, *, in_session: bool = False
    ) -> None:
        """After a 401 for what `refused` gave. It tells of the one server that a connection is to;
        the login's token may be good for others. One that ran out on its way tells of nothing."""
        source = self._source(server.auth)
        with suppress(NoToken, Unavailable):  # the next request is told the same
            current = await self._find(source, server, principal)
            if current is None or self._age(source, current) == "over":
                return
            self._doubts.note_futile(server, bearer.token_id)
            if source.one_server and not in_session and _sent(bearer, current):
                await self._doubts.unauthorized(source, current)

    async def lacks_scope(self, server: McpServer, bearer: Bearer, challenge: Challenge) -> None:
        """After a 403: what to ask for when the user connects the next time."""
        asked = (bearer.token_id, challenge.scope)
        wants = challenge.error == INSUFFICIENT and bool(challenge.scope)
        if not wants or asked in self._wanted or not self._source(server.auth).one_server:
            return
        if len(self._wanted) >= MAX_REMEMBERED:
            self._wanted.clear()
        self._wanted.add(asked)
        try:
            await want_scopes(self._db, bearer.token_id, challenge.scope)
        except Unavailable:
            self._wanted.discard(asked)

    async def keep(self, token_id: UUID, *, days: float) -> None:
        """Renew a token that nobody has needed for so long. Raises NoToken, Unreadable,
        Unavailable."""
        token = await read_token(self._db, self._keys, token_id)
        if token is None or token.needs_reauth is not None:
            return
        if datetime.now(UTC) - _renewed_at(token) < timedelta(days=days):
            return  # by another process, a moment ago
        source, url = await self._source_of(token)
        if source.renewable(token):
            await self._renewals.renewed(source, url, token)

    async def close(self) -> None:
        """Waits for what authorization servers have been asked for, where that may be lost."""
        self._firsts.close()
        await self._renewals.close()

    async def _usable(self, source: Source, server: McpServer, principal: Principal) -> StoredToken:
        token = await self._find(source, server, principal)
        if token is None:
            token = await self._firsts.token(source, server, principal)
        token = await self._doubts.passed(token)
        age = self._age(source, token)
        if age == "fresh":
            return token
        if not source.renewable(token):
            if age == "over":
                await mark(self._db, token, "expired", "")
                raise NotConnected("expired")
            return token
        if age == "due":
            if self._pauses.error(token.id) is None:
                self._renewals.begin(source, server.url, token)
            return token
        return await self._awaited(source, server.url, token)

    async def _awaited(self, source: Source, server_url: str, token: StoredToken) -> StoredToken:
        """The renewed one; while this one is not over, it will do."""
        for _ in range(TRIES):
            try:
                token = await self._in_time(source, server_url, token)
            except NotConnected:
                raise
            except (NoToken, Unavailable) as missing:
                if self._age(source, token) == "over":
                    await self._doubts.not_renewed(token, missing)
                    raise
            if token.needs_reauth is not None:
                raise NotConnected(token.needs_reauth)
            if self._age(source, token) != "over":
                return token
        raise NoToken("The token could not be renewed in time.")

    async def _in_time(self, source: Source, server_url: str, token: StoredToken) -> StoredToken:
        while True:
            try:
                async with asyncio.timeout(self._patience_s(token)):
                    return await self._renewed(source, server_url, token)
            except TimeoutError:
                if self._age(source, token) != "over":
                    return token

    def _patience_s(self, token: StoredToken) -> float | None:
        """Half of what is left, as the token still has to arrive. None: until the renewal ends."""
        if token.expires_at is None:
            return None
        left_s = (token.expires_at - datetime.now(UTC)).total_seconds()
        return left_s / 2 if left_s > SAFE_S else None

    async def _renewed(self, source: Source, server_url: str, token: StoredToken) -> StoredToken:
        error = self._pauses.error(token.id)
        if error is not None:
            raise NoToken(f"The token could not be renewed: {error}.")
        return await self._renewals.renewed(source, server_url, token)

    async def _find(
        self, source: Source, server: McpServer, principal: Principal
    ) -> StoredToken | None:
        return await readable(self._db, source.find(server, principal))

    def _age(self, source: Source, token: StoredToken) -> Age:
        return age_of(
            token.expires_at,
            token.lifetime_s,
            now=datetime.now(UTC),
            share=share_of(token.id, self._process),
            ahead_s=source.ahead_s,
        )

    def _source(self, auth: McpAuth) -> Source:
        found = next((source for source in self._sources if source.serves(auth)), None)
        if found is None:
            raise NoToken("The server takes no tokens.")
        return found

    async def _source_of(self, token: StoredToken) -> tuple[Source, str]:
        """What renews a row that nobody asked for, and the URL its server is configured with."""
        if token.server_id is None:
            return self._source(UserAuth(type="user_oidc")), token.token_url
        known = load_server(self._db, self._keys, token.server_id, token.user_id)
        server = await readable(self._db, known)
        return self._source(server.auth), server.url

    async def _touch(self, token_id: UUID) -> None:
        now = time.monotonic()
        if now < self._touched.get(token_id, 0.0):
            return
        if len(self._touched) >= MAX_REMEMBERED:
            self._touched.clear()
        self._touched[token_id] = now + TOUCH_S
        with suppress(Unavailable):
            await touch(self._db, token_id)


def _renewed_at(token: StoredToken) -> datetime:
    """As far as is known."""
    if token.expires_at is None or token.lifetime_s is None:
        return datetime.min.replace(tzinfo=UTC)
    return token.expires_at - timedelta(seconds=token.lifetime_s)


def _is_final(challenge: Challenge) -> bool:
    """The server says that the token is no good, or where to have another one (RFC 9728, 5.1)."""
    return challenge.error == INVALID or bool(challenge.resource_metadata)


def _sent(bearer: Bearer, token: StoredToken) -> bool:
    """Whether this very token went out."""
    return (bearer.token_id, bearer.generation) == (token.id, token.generation)
