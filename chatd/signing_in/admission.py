"""Who signed in becomes a user of ours, with a session: one transaction."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from chatd import audit, logs
from chatd.audit import By, Target
from chatd.core.errors import Conflict, NotFound
from chatd.core.logins import Login, Profile
from chatd.core.oauth import Grant
from chatd.signing_in.flow import SignInFailed
from chatd.store import policy_state
from chatd.store.db import Database
from chatd.store.logins import Entered, enter
from chatd.store.oauth_tokens import read_token_of, save_grant
from chatd.store.secrets import KeyRing, Tampered, UnknownKey
from chatd.store.sessions import NewSession, create_session, keep_id_token
from chatd.store.user_links import UserLink, find_link

ATTEMPTS = 3
"""Two first logins at once, of one user or under one name: the second one finds the first."""

log = logs.get("login")

_Fields = Mapping[str, Any] | None
_Note = tuple[str, Target, _Fields, _Fields]


@dataclass(frozen=True, slots=True)
class Visit:
    """Somebody whose identity is proven."""

    issuer: str
    token_url: str
    scopes: str
    profile: Profile
    grant: Grant
    request_id: str


class Admission:
    def __init__(self, db: Database, keys: KeyRing, login: Login) -> None:
        self._db = db
        self._keys = keys
        self._login = login

    async def admit(self, visit: Visit) -> NewSession:
        """Raises `SignInFailed`."""
        for _ in range(ATTEMPTS):
            link = await find_link(self._db, visit.issuer, visit.profile.subject)
            if link is None and not self._login.allow_signup:
                message = "There is no account for you here. Ask your administrator for one."
                raise SignInFailed(message, page_status=403, reason="no_account")
            try:
                return await self._enter(link, visit)
            except (Conflict, NotFound):
                continue
        message = "An account could not be made for you. Ask your administrator."
        raise SignInFailed(message, page_status=409, reason="no_free_name")

    async def _enter(self, link: UserLink | None, visit: Visit) -> NewSession:
        grant = await self._refreshable(link, visit)
        async with self._db.transaction() as session:
            await policy_state.bump(session)
            entered = await enter(session, link, visit.issuer, visit.profile)
            user = entered.after
            if user.suspended:
                message = "Your account is suspended. Ask your administrator."
                raise SignInFailed(message, page_status=403, reason="suspended")
            await save_grant(
                session,
                self._keys,
                server_id=None,
                user_id=user.id,
                issuer=visit.issuer,
                client_id=self._login.client.client_id,
                token_url=visit.token_url,
                resource="",
                scopes=visit.scopes,
                grant=grant,
            )
            made = await create_session(session, user.id, seconds=self._login.session_s)
            if grant.id_token is not None:
                await keep_id_token(session, self._keys, made.id, grant.id_token)
            by = By(user.id, visit.request_id)
            for action, target, before, after in _notes(entered, made, visit):
                audit.record(session, by, action, target, before=before, after=after)
        if visit.profile.role not in (None, user.role):
            log.warning("the last administrator stays one", user=str(user.id))
        return made

    async def _refreshable(self, link: UserLink | None, visit: Visit) -> Grant:
        """Some providers hand out a refresh token at the first login alone."""
        if link is None or visit.grant.refresh_token is not None:
            return visit.grant
        try:
            token = await read_token_of(self._db, self._keys, server_id=None, user_id=link.user_id)
        except (Tampered, UnknownKey):
            return visit.grant
        ours = (visit.issuer, self._login.client.client_id)
        if token is None or token.needs_reauth or (token.issuer, token.client_id) != ours:
            return visit.grant
        return replace(visit.grant, refresh_token=token.refresh_token)


def _notes(entered: Entered, made: NewSession, visit: Visit) -> Iterator[_Note]:
    """What the audit log is told."""
    target = Target("user", entered.after.id)
    before = entered.before.told() if entered.before is not None else None
    if before != entered.after.told():
        yield "create" if before is None else "update", target, before, entered.after.told()
    if entered.groups_before != entered.groups_after:
        groups = [{"groups": list(each)} for each in (entered.groups_before, entered.groups_after)]
        yield "update", target, groups[0], groups[1]
    told = {"user_id": str(entered.after.id), "issuer": visit.issuer}
    yield "sign_in", Target("session", made.id), None, told
