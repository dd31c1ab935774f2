"""A client of our own at an authorization server: RFC 7591, or the document we host (CIMD)."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import httpx2
from pydantic import SecretStr

from chatd.core.errors import NotDialled
from chatd.core.oauth import AUTH_METHODS, AuthMethod, Client, Issuer
from chatd.core.tools import JsonObject
from chatd.oauth.attempts import MANUAL, Attempt, Fault, Problem, RegistrationFailed, shown
from chatd.oauth.documents import LIMITS, Limits, fault_of, json_object, redirects_to
from chatd.oauth.urls import is_document_url, parsed

__all__ = ["RegistrationFailed", "choose_client", "client_document", "register"]

_SECRET_METHODS: tuple[AuthMethod, ...] = ("client_secret_post", "client_secret_basic")
_METHODS: tuple[AuthMethod, ...] = ("none", *_SECRET_METHODS)
_REFUSALS = (400, 401, 403, 422)
"""Another method of authentication may be taken; any other status is not about what we asked."""

_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_CLIENT_ID = re.compile(r"[\x20-\x7e]{1,2048}")
_SECRET = re.compile(r"[\x20-\x7e]{1,4096}")


@dataclass(frozen=True, slots=True)
class _Ask:
    """What every request of one registration says, whatever the method."""

    redirect_uris: tuple[str, ...]
    client_name: str
    client_uri: str
    scopes: str

    def body(self, method: AuthMethod) -> JsonObject:
        """`application_type`: OpenID Connect Registration, section 2; MCP asks for it (a backend's
        redirect URIs are web ones)."""
        body = _metadata(self.redirect_uris, self.client_name, self.client_uri, method)
        return body | ({"scope": self.scopes} if self.scopes else {})


async def choose_client(
    http: httpx2.AsyncClient,
    issuer: Issuer,
    *,
    document_url: str,
    redirect_uris: Sequence[str],
    client_name: str,
    client_uri: str = "",
    scopes: str = "",
    limits: Limits = LIMITS,
) -> Client:
    """The document at `document_url` (see client_document; empty: none is hosted) where the issuer
    takes one, else a registration. Raises RegistrationFailed."""
    if issuer.takes_metadata_documents and is_document_url(document_url):
        return Client(client_id=document_url, source="metadata_document")
    return await register(
        http,
        issuer,
        redirect_uris=redirect_uris,
        client_name=client_name,
        client_uri=client_uri,
        scopes=scopes,
        limits=limits,
    )


async def register(
    http: httpx2.AsyncClient,
    issuer: Issuer,
    *,
    redirect_uris: Sequence[str],
    client_name: str,
    client_uri: str = "",
    scopes: str = "",
    limits: Limits = LIMITS,
) -> Client:
    """As a public client first, then with a secret: some servers refuse public web clients although
    they announce them. Never follows a redirect. Raises RegistrationFailed."""
    if not issuer.registration_endpoint:
        absent = Attempt(shown(issuer.issuer), "has no registration_endpoint", "missing")
        raise RegistrationFailed((absent,), _next_step(issuer, redirect_uris, ""))
    ask = _Ask(tuple(redirect_uris), client_name, client_uri, scopes)
    attempts: list[Attempt] = []
    try:
        async with asyncio.timeout(limits.total_s):
            for method in _order(issuer.auth_methods):
                answer = await _try(http, issuer, ask, method, limits)
                if isinstance(answer, Client):
                    return answer
                found = f"as {method}: {answer.found}"
                attempts.append(Attempt(shown(issuer.registration_endpoint), found, answer.problem))
                if answer.problem != "refused":
                    break
    except TimeoutError:
        late = "no answer before the time for all was over"
        attempts.append(Attempt(shown(issuer.registration_endpoint), late, "unreachable"))
    raise RegistrationFailed(attempts, _next_step(issuer, redirect_uris, attempts[-1].problem))


def client_document(
    url: str, redirect_uris: Sequence[str], *, client_name: str, client_uri: str = ""
) -> JsonObject:
    """What `url` has to answer for it to be a client id (draft-ietf-oauth-client-id-metadata-
    document, section 4): it names itself, and holds no secret."""
    return {"client_id": url} | _metadata(tuple(redirect_uris), client_name, client_uri, "none")


def _metadata(
    redirect_uris: tuple[str, ...], client_name: str, client_uri: str, method: AuthMethod
) -> JsonObject:
    metadata: JsonObject = {
        "client_name": client_name,
        "redirect_uris": list(redirect_uris),
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "application_type": "web",
        "token_endpoint_auth_method": method,
    }
    return metadata | ({"client_uri": client_uri} if client_uri else {})


def _order(announced: Sequence[str]) -> Sequence[AuthMethod]:
    """Announced ones first; `none` not at all where others are announced and it is not."""
    first: list[AuthMethod] = [each for each in _METHODS if not announced or each in announced]
    return [*first, *(each for each in _SECRET_METHODS if each not in first)]


async def _try(
    http: httpx2.AsyncClient, issuer: Issuer, ask: _Ask, method: AuthMethod, limits: Limits
) -> Client | Fault:
    url = parsed(issuer.registration_endpoint)
    if url is None:
        return Fault("not an http or https URL without credentials", "endpoint")
    headers = {"accept": "application/json"}
    try:
        async with (
            asyncio.timeout(limits.request_s),
            http.stream(
                "POST", url, json=ask.body(method), headers=headers, follow_redirects=False
            ) as response,
        ):
            if response.has_redirect_location:
                return redirects_to(url.join(response.headers["location"]))
            body = await json_object(response) or {}
            status = response.status_code
    except (httpx2.HTTPError, httpx2.InvalidURL, NotDialled, TimeoutError) as error:
        return fault_of(error)
    if status not in (200, 201):
        return _refusal(status, body)
    return _client(body, method, issuer, ask.redirect_uris)


def _refusal(status: int, body: JsonObject) -> Fault:
    """The code of RFC 7591, section 3.2.2, and never the description: it may repeat what we sent,
    or what a server inside said to another that passes it on."""
    code = body.get("error")
    named = f" {code}" if isinstance(code, str) and _CODE.fullmatch(code) else ""
    if status >= 500 or status in (408, 429):
        return Fault(f"HTTP {status}{named}", "unreachable")
    return Fault(f"HTTP {status}{named}", "refused" if status in _REFUSALS else "missing")


def _client(
    body: JsonObject, asked: AuthMethod, issuer: Issuer, redirect_uris: Sequence[str]
) -> Client | Fault:
    """RFC 7591, section 3.2.1: the server may have put other values than those we asked for."""
    client_id, secret = body.get("client_id"), body.get("client_secret")
    if not isinstance(client_id, str) or not _CLIENT_ID.fullmatch(client_id):
        return Fault("its answer has no client_id", "invalid")
    if not _kept(body.get("redirect_uris"), redirect_uris):
        return Fault("it registered other redirect URIs than ours", "invalid")
    has_secret = isinstance(secret, str) and _SECRET.fullmatch(secret) is not None
    method = body.get("token_endpoint_auth_method") or _unsaid(asked, issuer, has_secret=has_secret)
    if method not in _METHODS:
        known = method in AUTH_METHODS
        return Fault(f"it wants {method if known else 'an unknown method'} instead", "refused")
    if method == "none":
        return Client(client_id=client_id, source="registered")
    if not has_secret:
        return Fault("its answer has no client_secret", "refused")
    return Client(
        client_id=client_id,
        auth_method=cast(AuthMethod, method),
        secret=SecretStr(str(secret)),
        source="registered",
    )


def _kept(registered: object, ours: Sequence[str]) -> bool:
    """Without them nobody could log in with this client. Many answers do not say."""
    said = registered if isinstance(registered, list) else []
    return not said or all(each in said for each in ours)


def _unsaid(asked: AuthMethod, issuer: Issuer, *, has_secret: bool) -> AuthMethod:
    """Where the answer names no method: what we asked for, unless a public client got a secret."""
    if asked != "none" or not has_secret:
        return asked
    for method in _SECRET_METHODS:
        if method in issuer.auth_methods:
            return method
    return "client_secret_basic"


def _next_step(issuer: Issuer, redirect_uris: Sequence[str], problem: Problem) -> str:
    by_hand = (
        f"Register an application at {shown(issuer.issuer) if issuer.issuer else 'its operator'} "
        f"with the redirect URI {', '.join(redirect_uris)} and give {MANUAL}: "
        f"oauth2_auth_url is {shown(issuer.authorization_endpoint)}, "
        f"oauth2_token_url is {shown(issuer.token_endpoint)}."
    )
    if issuer.registration_endpoint:
        return _REASONS.get(problem, "") + by_hand
    if issuer.takes_metadata_documents:
        return (
            "The authorization server takes client id metadata documents, but ours is not at a "
            f"public https URL: check CHATD_ACCESS_URL. Or: {by_hand}"
        )
    return f"The authorization server registers no clients by itself. {by_hand}"


_REASONS: dict[Problem, str] = {
    "unreachable": "The registration endpoint did not answer: try again later. Or: ",
    "blocked": "The registration endpoint is at an address this deployment may not call. ",
    "refused": "The authorization server refuses to register us: it may know only the clients or "
    "redirect URIs that its operator allowed. ",
}
