"""Whose session a browser's cookie is; one that was changed for another too long ago ends it."""

from starlette.requests import HTTPConnection

from chatd.api.errors import REQUEST_ID
from chatd.api.parts import Parts
from chatd.api.session_cookie import Cookie
from chatd.store.sessions import SignedIn, authenticate_session


async def signed_in(request: HTTPConnection, parts: Parts, cookie: Cookie) -> SignedIn | None:
    """None: nobody is. Raises `Unavailable`."""
    found = await authenticate_session(parts.db, cookie.token)
    if found is not None:
        # Without its proof, which only we could have taken out, it is not as we have set it.
        return found if found.sent_by_us(cookie.csrf) else None
    request_id = request.scope.get(REQUEST_ID, "")
    user_id = await parts.signing_in.end_reused(cookie.token, request_id)
    if user_id is not None:
        await parts.people.revoked(user_id)
    return None
