"""Signing in with an OpenID provider, as a browser sees it; and signing out."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from chatd import logs
from chatd.api.answers import FORBIDDEN, NOT_FOUND, json_answer
from chatd.api.auth import Signed, by
from chatd.api.errors import REQUEST_ID
from chatd.api.limits import JsonRoute
from chatd.api.oauth_pages import away, busy_page, trouble_page
from chatd.api.parts import Parts, PartsDep
from chatd.api.session_cookie import (
    NAME,
    SLOT,
    Slot,
    cookie_header,
    cookie_of,
    new_cookie,
    origin_of,
    sent,
)
from chatd.connecting.flows import checked_return
from chatd.core.errors import NotFound, TooMany
from chatd.core.oauth import CodeAnswer
from chatd.signing_in import LIFETIME_S, LOGIN_PATH, SignInFailed, flow_of

router = APIRouter(tags=["users"], route_class=JsonRoute)
pages = APIRouter(include_in_schema=False)

_COOKIE = "chatd_login_"
_MAX_QUERY = 8192

log = logs.get("login")


class SignedOut(BaseModel):
    logout_url: str = Field(
        description="To open in the browser, to sign out of the OpenID provider too; or empty."
    )


@pages.get("/login")
async def login(request: Request, parts: PartsDep, return_to: str = "") -> Response:
    """Away to the provider. `return_to`: a path of this site, where the browser goes in the end."""
    parts.signing_in.require()
    back = checked_return(return_to)
    if "prefetch" in request.headers.get("sec-purpose", ""):
        return Response(status_code=503, headers={"Cache-Control": "no-store"})
    try:
        await parts.rates.admit("login", request)
        begun = await parts.signing_in.begin(back)
    except TooMany as error:
        return busy_page(error)
    except SignInFailed as error:
        return _trouble(parts, error)
    answer = away(begun.url)
    _set(answer, parts, _COOKIE + begun.flow, begun.cookie, LIFETIME_S)
    return answer


@pages.get("/login/callback")
async def callback(
    request: Request,
    parts: PartsDep,
    state: str = "",
    code: str = "",
    iss: str | None = None,
    said: Annotated[str, Query(alias="error")] = "",
) -> Response:
    """Back from there. Nothing of the query is ever shown."""
    access_url = parts.signing_in.access_url
    parts.signing_in.require()
    former = cookie_of(request, access_url)
    try:
        await parts.rates.admit("login callback", request)
        _check_form(request)
        signed_in = await parts.signing_in.finish(
            CodeAnswer(state, code, iss, said),
            lambda flow: sent(request, access_url, _COOKIE + flow),
            former=former.token if former is not None else "",
            request_id=request.scope[REQUEST_ID],
        )
    except TooMany as error:
        return busy_page(error)
    except SignInFailed as error:
        answer = _trouble(parts, error)
    else:
        answer = _welcome(access_url, signed_in.return_to)
        seconds = parts.signing_in.require().session_s
        cookie = new_cookie(signed_in.session)
        answer.headers.append("Set-Cookie", cookie.header(access_url, seconds))
        if signed_in.former_user_id is not None:
            await parts.people.revoked(signed_in.former_user_id)
    name = _COOKIE + flow_of(state)
    if sent(request, access_url, name):
        _set(answer, parts, name, "", 0)
    return answer


@router.post(
    "/logout",
    response_model=SignedOut,
    responses={**FORBIDDEN, **NOT_FOUND},
    summary="Sign out",
)
async def logout(request: Request, actor: Signed, parts: PartsDep) -> Response:
    """Ends the session of this browser and its streams. Turns go on. 404 for a token: it is no
    session."""
    if actor.session_id is None:
        parts.signing_in.require()
        raise NotFound("You are not signed in with a browser.", detail="Revoke the token instead.")
    url = await parts.signing_in.sign_out(actor.session_id, by(request, actor))
    await parts.people.revoked(actor.user_id)
    slot: Slot = request.scope[SLOT]
    slot.hand_out(cookie_header(parts.signing_in.access_url, NAME, "", 0))
    return json_answer({"logout_url": url})


def _set(answer: Response, parts: Parts, name: str, value: str, seconds: float) -> None:
    header = cookie_header(parts.signing_in.access_url, name, value, seconds)
    answer.headers.append("Set-Cookie", header)


def _welcome(access_url: str, return_to: str) -> Response:
    if return_to:
        return away(origin_of(access_url) + return_to)
    return trouble_page(200, "Signed in", "You are signed in. You can close this window.")


def _check_form(request: Request) -> None:
    """No parameter may come twice (RFC 6749, section 3.1)."""
    names = [name for name, _ in request.query_params.multi_items()]
    if len(request.url.query) > _MAX_QUERY or len(set(names)) < len(names):
        raise SignInFailed("The answer of the sign-in service is not valid.", reason="form")


def _trouble(parts: Parts, error: SignInFailed) -> Response:
    log.info("nobody was signed in", reason=error.reason)
    again = parts.signing_in.access_url + LOGIN_PATH
    title = "You are not signed in"
    return trouble_page(error.page_status, title, error.message, back=again, link="Try again")
