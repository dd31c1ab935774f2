"""A user's way to an authorization server and back, and its end: connecting, disconnecting.

What is under way is kept in `oauth_states`, found by secrets that work once: a ticket opens the
consent page, going on from there makes the state that the callback brings back. The callback has no
session: it is the user of the state who gets connected, in the browser that holds its cookie.
"""

import secrets
from typing import Protocol
from urllib.parse import quote, urlsplit
from uuid import UUID

from chatd import audit, logs
from chatd.audit import By, Target
from chatd.connecting import redeeming
from chatd.connecting.flows import (
    LIFETIME_S,
    Asked,
    Connected,
    Cookie,
    Opened,
    Pending,
    Stopped,
    Ticket,
    checked_return,
    cookie_name,
    csrf_of,
    flow_name,
)
from chatd.connecting.renewing import Renewing
from chatd.core.errors import BadRequest, NotFound
from chatd.core.oauth import CALLBACK_PATH, CodeAnswer, Grant
from chatd.oauth.authorize import authorization_url, new_verifier
from chatd.oauth.errors import Unreachable
from chatd.oauth.resource import indicator
from chatd.outbound import Outbound
from chatd.store import policy_state
from chatd.store.db import Database, Session
from chatd.store.oauth_servers import OAuthServer, Visit, read_visit, still_usable
from chatd.store.oauth_states import (
    State,
    bind_state,
    create_state,
    hold_state,
    new_secret,
    read_state,
    use_state,
)
from chatd.store.oauth_tokens import save_grant
from chatd.store.secrets import KeyRing

PATH = CALLBACK_PATH.removesuffix("callback")
"""Under which all pages of a server's flow are."""

_USED = "This link has been used, or it is too old. Start again from where you got it."
_ELSEWHERE = (
    "This sign-in was not begun in this browser, has been finished already, or took too long."
)
_SOMEBODY_ELSE = "You are signed in here as somebody else than who asked to connect."
_NOT_YOURS = "The account you signed in with there belongs to somebody else here."
_GONE = "This server cannot be connected any more. Ask your administrator."
_DISCONNECTED = "You disconnected this server meanwhile. To connect it after all, start again."
_CHANGED = "This server's configuration was changed meanwhile. Start again."

log = logs.get("oauth")


class Visitor(Protocol):
    """What a request tells of its browser."""

    @property
    def user_id(self) -> UUID | None: ...

    def cookie(self, name: str) -> str: ...


class Connecting:
    def __init__(
        self,
        db: Database,
        keys: KeyRing,
        outbound: Outbound,
        access_url: str,
        renewing: Renewing,
    ) -> None:
        self._db = db
        self._keys = keys
        self._outbound = outbound
        self._url = access_url
        self._renewing = renewing

    async def ticket(self, server_id: UUID, user_id: UUID, *, return_to: str = "") -> Ticket:
        """A link that one browser may open once. Raises `NotFound`, `BadRequest`."""
        return_to = checked_return(return_to)
        visit = await read_visit(self._db, self._keys, server_id, user_id)
        if not visit.usable:
            raise NotFound
        if not visit.server.ready:
            raise BadRequest("Users do not connect to this MCP server.")
        made = await create_state(
            self._db,
            self._keys,
            kind="ticket",
            user_id=user_id,
            server_id=server_id,
            data={"return_to": return_to},
            seconds=LIFETIME_S,
        )
        url = f"{self._place(server_id)}consent?ticket={quote(made.secret)}"
        return Ticket(url, made.expires_at)

    async def open(self, server_id: UUID, ticket: str, visitor: Visitor) -> Opened:
        """The consent page, for the browser that came first with the ticket, also when it comes
        again. Raises `Stopped`."""
        name = cookie_name(flow_name(ticket))
        held = visitor.cookie(name)
        state = await self._read(ticket, held) if held else None
        if state is None:
            state, held = await self._read(ticket, None), new_secret()
        if state is None:
            raise Stopped(_USED, page_status=410, reason="used")
        visit = await self._visit(state, server_id, visitor)
        if visit.client_refused or visit.connects_again:
            await self._renew(visit)
            visit = await self._visit(state, server_id, visitor)
        if not await bind_state(self._db, ticket, kind="ticket", cookie=held):
            raise Stopped(_USED, page_status=410, reason="used")
        return Opened(_asked(visit), Cookie(name, held), csrf_of(held))

    async def go_on(
        self, server_id: UUID, ticket: str, csrf: str, visitor: Visitor
    ) -> tuple[str, Cookie]:
        """The authorization URL, and the cookie its answer has to come with. Raises `Stopped`."""
        held = visitor.cookie(cookie_name(flow_name(ticket)))
        if not held or not secrets.compare_digest(csrf_of(held).encode(), csrf.encode()):
            raise Stopped(_ELSEWHERE, page_status=403, reason="csrf")
        state = await use_state(self._db, self._keys, ticket, kind="ticket", cookie=held)
        if state is None:
            raise Stopped(_USED, page_status=410, reason="used")
        visit = await self._visit(state, server_id, visitor)
        pending = self._pending(visit, str(state.data.get("return_to", "")))
        browser = new_secret()
        made = await create_state(
            self._db,
            self._keys,
            kind="state",
            user_id=state.user_id,
            server_id=server_id,
            cookie=browser,
            data=pending.data(),
            seconds=LIFETIME_S,
            after=state.id,
        )
        try:
            url = _authorization_url(visit.server, pending, made.secret)
        except Unreachable:
            raise Stopped(_GONE, page_status=502, reason="authorization_url") from None
        return url, Cookie(cookie_name(flow_name(made.secret)), browser)

    async def finish(
        self, server_id: UUID, answer: CodeAnswer, visitor: Visitor, request_id: str
    ) -> Connected:
        """Take what an authorization server answered. Raises `Stopped`."""
        browser = visitor.cookie(cookie_name(flow_name(answer.state)))
        state = None
        if browser:
            state = await use_state(
                self._db, self._keys, answer.state, kind="state", cookie=browser
            )
        if state is None or state.user_id is None:
            raise Stopped(_ELSEWHERE, reason="state")
        visit = await self._visit(state, server_id, visitor)
        pending = Pending.read(state.data)
        code = redeeming.checked_code(pending, answer)
        server = visit.server
        said = (server.issuer.issuer, server.client.client_id, server.issuer.token_endpoint)
        if said != (pending.issuer, pending.client_id, pending.token_url):
            raise Stopped(_CHANGED, reason="changed", return_to=pending.return_to, page_status=409)
        grant = await redeeming.redeem(self._outbound, server, pending, code, self._renewing.renew)
        theirs = await redeeming.check_identity(self._db, grant, pending.issuer, state.user_id)
        if not theirs:
            await redeeming.give_back(self._outbound, server, grant)
            raise Stopped(_NOT_YOURS, page_status=403, reason="somebody_else")
        refused = await self._save(server, pending, grant, state.id, By(state.user_id, request_id))
        if refused:
            await redeeming.give_back(self._outbound, server, grant)
            raise Stopped(refused, page_status=403, reason="gone")
        return Connected(state.user_id, server_id, server.display_name, pending.return_to)

    async def _save(
        self,
        server: OAuthServer,
        pending: Pending,
        grant: Grant,
        state_id: UUID,
        by: By,
    ) -> str:
        """Why not: what somebody did while the code was redeemed is newer than what it is for."""
        user_id = by.actor_id
        assert user_id is not None
        async with self._db.transaction() as session:
            await policy_state.lock(session)
            if not await still_usable(session, server, user_id):
                return _GONE
            if not await hold_state(session, state_id):
                return _DISCONNECTED
            await save_grant(
                session,
                self._keys,
                server_id=server.id,
                user_id=user_id,
                issuer=pending.issuer,
                client_id=pending.client_id,
                token_url=pending.token_url,
                resource=pending.resource,
                scopes=pending.scopes,
                grant=grant,
            )
            told = {"user_id": str(user_id), "issuer": pending.issuer, "scopes": pending.scopes}
            _record(session, "connect", server.id, by, told)
        return ""

    async def _renew(self, visit: Visit) -> None:
        """Before the user leaves: they would come back with another useless token, or never, where
        our client is not known any more."""
        server = visit.server
        renew = self._renewing.renew if visit.client_refused else self._renewing.look
        await renew(server.id, server.client.client_id)

    async def _read(self, ticket: str, cookie: str | None) -> State | None:
        return await read_state(self._db, self._keys, ticket, kind="ticket", cookie=cookie)

    async def _visit(self, state: State, server_id: UUID, visitor: Visitor) -> Visit:
        """Raises `Stopped` for what is not the flow's own server, user or browser."""
        if state.server_id != server_id or state.user_id is None:
            raise Stopped(_ELSEWHERE, reason="server")
        if visitor.user_id is not None and visitor.user_id != state.user_id:
            raise Stopped(_SOMEBODY_ELSE, page_status=403, reason="somebody_else")
        try:
            visit = await read_visit(self._db, self._keys, server_id, state.user_id)
        except NotFound:
            raise Stopped(_GONE, page_status=404, reason="gone") from None
        if not visit.usable or not visit.server.ready:
            raise Stopped(_GONE, page_status=403, reason="gone")
        return visit

    def _pending(self, visit: Visit, return_to: str) -> Pending:
        server = visit.server
        return Pending(
            issuer=server.issuer.issuer,
            sends_issuer=server.issuer.sends_issuer,
            client_id=server.client.client_id,
            token_url=server.issuer.token_endpoint,
            redirect_uri=f"{self._place(server.id)}callback",
            resource=indicator(server.url, server.resource, sent=server.sends_resource),
            scopes=" ".join(_scopes(visit)),
            verifier=new_verifier(),
            return_to=return_to,
        )

    def _place(self, server_id: UUID) -> str:
        return self._url + PATH.format(server=server_id)


def _authorization_url(server: OAuthServer, pending: Pending, state: str) -> str:
    # OpenID providers give a refresh token only to those who ask for consent as well.
    lasting = "offline_access" in pending.scopes.split()
    return authorization_url(
        server.issuer,
        server.client,
        redirect_uri=pending.redirect_uri,
        scopes=pending.scopes,
        state=state,
        verifier=pending.verifier,
        resource=pending.resource,
        prompt="consent" if lasting else "",
    )


def _asked(visit: Visit) -> Asked:
    server = visit.server
    return Asked(
        server_name=server.display_name,
        server_host=urlsplit(server.url).netloc,
        username=visit.username,
        authorization_url=server.issuer.authorization_endpoint,
        token_url=server.issuer.token_endpoint,
        scopes=_scopes(visit),
    )


def _scopes(visit: Visit) -> tuple[str, ...]:
    """Those configured, and those that the server has asked for since."""
    return tuple(dict.fromkeys((*visit.server.scopes, *visit.wanted_scopes)))


def _record(session: Session, action: str, server_id: UUID, by: By, told: dict[str, str]) -> None:
    audit.record(session, by, action, Target("mcp_server", server_id), after=told)
