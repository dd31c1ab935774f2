"""Signing in: a browser's way to the OpenID provider and back."""

import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any
from uuid import UUID

from chatd import audit, logs
from chatd.audit import By, Target
from chatd.core.errors import NotFound
from chatd.core.logins import Login, Profile, read_profile
from chatd.core.oauth import CodeAnswer, Issuer
from chatd.oauth.authorize import authorization_url, check_answer_issuer, new_verifier
from chatd.oauth.errors import MixedUp, Unreachable
from chatd.oauth.identity import REFETCH_S
from chatd.outbound import Outbound
from chatd.signing_in.admission import Admission, Visit
from chatd.signing_in.flow import (
    CALLBACK_PATH,
    LIFETIME_S,
    Begun,
    Pending,
    SignedInNow,
    SignInFailed,
    flow_of,
)
from chatd.signing_in.provider import Provider
from chatd.store.db import Database
from chatd.store.oauth_states import create_state, new_secret, use_state
from chatd.store.secrets import KeyRing, Tampered, UnknownKey
from chatd.store.sessions import (
    authenticate_session,
    end_session,
    find_reused,
    read_id_token,
)

_OVER = "This sign-in was not begun in this browser, or it is over. Start again."

log = logs.get("login")


class SigningIn:
    """One per process. Without `login` nobody can sign in; who is may go on, and sign out."""

    def __init__(
        self,
        db: Database,
        keys: KeyRing,
        outbound: Outbound,
        access_url: str,
        login: Login | None,
        *,
        refetch_s: float = REFETCH_S,
    ) -> None:
        self._db = db
        self._keys = keys
        self.access_url = access_url
        self._login = login
        if login is not None:
            self._provider = Provider(outbound, login, refetch_s=refetch_s)
            self._admission = Admission(db, keys, login)

    def require(self) -> Login:
        """Raises `NotFound` where there is no login."""
        if self._login is None:
            raise NotFound("No login is configured.")
        return self._login

    async def begin(self, return_to: str) -> Begun:
        """Raises `SignInFailed`, `NotFound`."""
        login = self.require()
        issuer = await self._provider.issuer()
        pending = Pending(
            issuer=issuer.issuer,
            sends_issuer=issuer.sends_issuer,
            client_id=login.client.client_id,
            redirect_uri=self.access_url + CALLBACK_PATH,
            scopes=_scopes(login, issuer),
            return_to=return_to,
            verifier=new_verifier(),
            nonce=secrets.token_urlsafe(32),
        )
        cookie = new_secret()
        state = await create_state(
            self._db,
            self._keys,
            kind="login",
            data=pending.data(),
            seconds=LIFETIME_S,
            cookie=cookie,
        )
        return Begun(_away(issuer, login, pending, state.secret), flow_of(state.secret), cookie)

    async def finish(
        self, answer: CodeAnswer, cookie_of: Callable[[str], str], *, former: str, request_id: str
    ) -> SignedInNow:
        """`cookie_of`: the cookie that went with a flow. `former`: the session of this browser
        until now, if there was one, which ends. Raises `SignInFailed`, `NotFound`."""
        login = self.require()
        pending = await self._pending(answer.state, cookie_of(flow_of(answer.state)))
        code = _code(pending, answer)
        issuer = await self._provider.issuer()
        if (pending.issuer, pending.client_id) != (issuer.issuer, login.client.client_id):
            raise SignInFailed(_OVER, reason="configured_anew")
        grant, claims = await self._provider.identified(pending, code)
        visit = Visit(
            issuer=issuer.issuer,
            token_url=issuer.token_endpoint,
            scopes=pending.scopes,
            profile=_profile(claims, login),
            grant=grant,
            request_id=request_id,
        )
        session = await self._admission.admit(visit)
        ended = await self._end_former(former, request_id) if former else None
        return SignedInNow(session, pending.return_to, ended)

    async def sign_out(self, session_id: UUID, by: By) -> str:
        """The session ends. Answers where the browser signs out of the provider too, or nothing."""
        told = {"user_id": str(by.actor_id)}
        async with self._db.transaction() as session:
            if await end_session(session, session_id):
                audit.record(session, by, "sign_out", Target("session", session_id), before=told)
        if self._login is None:
            return ""
        id_token = None
        with suppress(Tampered, UnknownKey):
            id_token = await read_id_token(self._db, self._keys, session_id)
        return await self._provider.logout_url(id_token)

    async def end_reused(
        self, token: str, request_id: str, *, slow_too: bool = False
    ) -> UUID | None:
        """End the session that this token, which lets nobody in any more, was one of: somebody
        holds a copy. Answers whose it was; None: there is no such session, it is over, or the
        request may just have been slow."""
        reused = await find_reused(self._db, token, slow_too=slow_too)
        if reused is None:
            return None
        target, told = Target("session", reused.session_id), {"user_id": str(reused.user_id)}
        async with self._db.transaction() as session:
            if not await end_session(session, reused.session_id):
                return None
            # Whoever it was: nobody is known to have done it.
            by = By(request_id=request_id)
            audit.record(session, by, "session_reuse", target, before=told)
        log.warning("a former token of a session was shown: it is over", user=str(reused.user_id))
        return reused.user_id

    async def _end_former(self, token: str, request_id: str) -> UUID | None:
        before = await authenticate_session(self._db, token)
        if before is None:
            # Whoever goes on with that session now, this browser has it no more.
            return await self.end_reused(token, request_id, slow_too=True)
        async with self._db.transaction() as session:
            await end_session(session, before.session_id)
        return before.actor.user_id

    async def _pending(self, state: str, cookie: str) -> Pending:
        """Once, and in the browser that began it."""
        try:
            found = await use_state(self._db, self._keys, state, kind="login", cookie=cookie)
        except (Tampered, UnknownKey):
            found = None
        if found is None or not cookie:
            raise SignInFailed(_OVER, reason="state")
        return Pending.read(found.data)


def _scopes(login: Login, issuer: Issuer) -> str:
    """Providers that do not list `offline_access` may refuse whoever asks for it."""
    known = issuer.scopes_supported
    wanted = login.scopes.split()
    return " ".join(each for each in wanted if each != "offline_access" or each in known)


def _away(issuer: Issuer, login: Login, pending: Pending, state: str) -> str:
    try:
        return authorization_url(
            issuer,
            login.client,
            redirect_uri=pending.redirect_uri,
            scopes=pending.scopes,
            state=state,
            verifier=pending.verifier,
            resource="",
            nonce=pending.nonce,
            prompt=login.prompt,
        )
    except Unreachable as error:
        reason = error.reason
    raise SignInFailed("The sign-in service cannot be used.", page_status=502, reason=reason)


def _code(pending: Pending, answer: CodeAnswer) -> str:
    """Whose answer it is comes before anything that it says (RFC 9207)."""
    issuer = Issuer(pending.issuer, "", "", sends_issuer=pending.sends_issuer)
    try:
        check_answer_issuer(issuer, answer.iss)
    except MixedUp:
        message = "The answer came from another sign-in service than the one that was asked."
        raise SignInFailed(message, reason="mixed_up") from None
    if answer.error == "access_denied":
        raise SignInFailed("You were not signed in.", page_status=403, reason="access_denied")
    if answer.error or not answer.code:
        message = "The sign-in service could not let you in. Try again later."
        raise SignInFailed(message, reason="provider_error" if answer.error else "no_code")
    return answer.code


def _profile(claims: Mapping[str, Any], login: Login) -> Profile:
    try:
        return read_profile(claims, login.rules)
    except ValueError as error:
        reason = str(error)
    message = "The sign-in service does not say who you are."
    raise SignInFailed(message, page_status=502, reason=reason)
