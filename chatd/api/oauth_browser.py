"""Connecting to MCP servers with OAuth, as a browser sees it: consent, away, and back again."""

from typing import Annotated
from urllib.parse import parse_qsl, urlencode, urlsplit
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from chatd import logs
from chatd.api.errors import REQUEST_ID
from chatd.api.oauth import CONNECTS_A_MINUTE
from chatd.api.oauth_pages import away, busy_page, connected_page, consent_page, trouble_page
from chatd.api.parts import Parts, PartsDep
from chatd.api.servers import PATH
from chatd.api.session_cookie import cookie_header, cookie_of, origin_of, sent
from chatd.api.signed_in import signed_in
from chatd.connecting.flows import LIFETIME_S, Cookie, Stopped, cookie_name, flow_name
from chatd.core.errors import ChatdError, NotFound, TooMany
from chatd.core.oauth import CALLBACK_PATH, CodeAnswer
from chatd.signing_in import LOGIN_PATH

router = APIRouter(prefix=PATH, include_in_schema=False)

_MAX_FORM = 4096
_MAX_QUERY = 8192
_TROUBLE = "This did not work"
_LATER = "Something is out of order here. Try again later."
_SIGN_IN_FIRST = "Sign in first"
_SIGN_IN = (
    "You are not signed in here. Open the link that your chat application gave you, or sign in"
    " first."
)

log = logs.get("oauth")


class _Visitor:
    """A request's browser."""

    def __init__(self, request: Request, parts: Parts, user_id: UUID | None) -> None:
        self.user_id = user_id
        self._request = request
        self._url = parts.oauth.access_url

    def cookie(self, name: str) -> str:
        return sent(self._request, self._url, name)


async def session_user(request: Request, parts: Parts) -> UUID | None:
    """Who is signed in with this browser."""
    cookie = cookie_of(request, parts.oauth.access_url)
    found = await signed_in(request, parts, cookie) if cookie is not None else None
    return found.actor.user_id if found is not None else None


@router.get("/{server}/oauth2/connect")
async def connect(request: Request, server: UUID, parts: PartsDep, return_to: str = "") -> Response:
    """What the link in a notice opens."""
    user_id = await session_user(request, parts)
    if user_id is None:
        return _sign_in_first(parts, server, return_to)
    try:
        await parts.rates.take("connect", user_id, limit=CONNECTS_A_MINUTE)
        ticket = await parts.oauth.connecting.ticket(server, user_id, return_to=return_to)
    except ChatdError as error:
        return _trouble(parts, server, error)
    return away(ticket.url)


@router.get("/{server}/oauth2/consent")
async def consent(request: Request, server: UUID, parts: PartsDep, ticket: str = "") -> Response:
    """Opens a ticket, and binds it to this browser."""
    if "prefetch" in request.headers.get("sec-purpose", ""):
        # A look ahead must not use up what the user is about to open.
        return Response(status_code=503, headers={"Cache-Control": "no-store"})
    try:
        visitor = await _admit(request, parts, "consent")
        opened = await parts.oauth.connecting.open(server, ticket, visitor)
    except ChatdError as error:
        return _trouble(parts, server, error)
    action = _place(parts, server) + "consent"
    page = consent_page(opened.asked, action=action, csrf=opened.csrf, ticket=ticket)
    _keep(page, parts, opened.cookie)
    return page


@router.post("/{server}/oauth2/consent")
async def go_on(request: Request, server: UUID, parts: PartsDep) -> Response:
    """Away to the authorization server."""
    try:
        visitor = await _admit(request, parts, "consent")
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise Stopped("This was sent from another site.", page_status=403, reason="csrf")
        form = dict(parse_qsl((await request.body())[:_MAX_FORM].decode("ascii", "replace")))
        ticket = form.get("ticket", "")
        url, cookie = await parts.oauth.connecting.go_on(
            server, ticket, form.get("csrf", ""), visitor
        )
    except ChatdError as error:
        return _trouble(parts, server, error)
    answer = away(url)
    _forget(answer, parts, request, ticket)
    _keep(answer, parts, cookie)
    return answer


@router.get("/{server}/oauth2/callback")
async def callback(
    request: Request,
    server: UUID,
    parts: PartsDep,
    state: str = "",
    code: str = "",
    iss: str | None = None,
    said: Annotated[str, Query(alias="error")] = "",
) -> Response:
    """Back from there. Nothing of the query is ever shown."""
    answer = CodeAnswer(state, code, iss, said)
    try:
        visitor = await _admit(request, parts, "callback")
        _check_form(request)
        request_id = request.scope[REQUEST_ID]
        connected = await parts.oauth.connecting.finish(server, answer, visitor, request_id)
        await parts.answers.connected(connected.user_id)
    except ChatdError as error:
        page = _trouble(parts, server, error)
    else:
        origin = origin_of(parts.oauth.access_url)
        if connected.return_to:
            page = away(origin + connected.return_to)
        else:
            page = connected_page(connected.server_name, str(connected.server_id), origin)
    _forget(page, parts, request, state)
    return page


def _sign_in_first(parts: Parts, server: UUID, return_to: str) -> Response:
    """A link, no redirect: a browser that keeps no cookie would go round in circles."""
    here = _place(parts, server) + "connect"
    if return_to:
        here += "?" + urlencode({"return_to": return_to})
    try:
        parts.signing_in.require()
    except NotFound:
        return trouble_page(401, _SIGN_IN_FIRST, _SIGN_IN)
    url = f"{parts.oauth.access_url}{LOGIN_PATH}?{urlencode({'return_to': here})}"
    return trouble_page(401, _SIGN_IN_FIRST, _SIGN_IN, back=url, link="Sign in")


async def _admit(request: Request, parts: Parts, what: str) -> _Visitor:
    """Raises `TooMany`."""
    user_id = await session_user(request, parts)
    await parts.rates.admit(what, request, user_id)
    return _Visitor(request, parts, user_id)


def _check_form(request: Request) -> None:
    """Raises `Stopped`: no parameter may come twice (RFC 6749, section 3.1)."""
    names = [name for name, _ in request.query_params.multi_items()]
    if len(request.url.query) > _MAX_QUERY or len(set(names)) < len(names):
        raise Stopped("The answer of the authorization server is not valid.", reason="form")


def _trouble(parts: Parts, server: UUID, error: ChatdError) -> Response:
    if isinstance(error, Stopped):
        log.info("a connection was not made", server=str(server), reason=error.reason)
        back = origin_of(parts.oauth.access_url) + error.return_to if error.return_to else ""
        return trouble_page(error.page_status, _TROUBLE, error.message, back=back)
    if isinstance(error, TooMany):
        return busy_page(error)
    if error.status < 500:
        return trouble_page(error.status, _TROUBLE, error.message)
    log.error("a connection failed", server=str(server), error=error.code, reason=error.message)
    return trouble_page(error.status, _TROUBLE, _LATER)


def _keep(answer: Response, parts: Parts, cookie: Cookie, seconds: float = LIFETIME_S) -> None:
    header = cookie_header(parts.oauth.access_url, cookie.name, cookie.value, seconds)
    answer.headers.append("Set-Cookie", header)


def _forget(answer: Response, parts: Parts, request: Request, secret: str) -> None:
    """The cookie of the flow with this secret."""
    name = cookie_name(flow_name(secret))
    if sent(request, parts.oauth.access_url, name):
        _keep(answer, parts, Cookie(name, ""), 0)


def _place(parts: Parts, server: UUID) -> str:
    """The path of a server's pages, as browsers see it."""
    here = CALLBACK_PATH.format(server=server).removesuffix("callback")
    return urlsplit(parts.oauth.access_url).path + here
