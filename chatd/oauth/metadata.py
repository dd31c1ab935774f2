"""What an authorization server says of itself: RFC 8414 and OpenID Connect Discovery."""

import re
from dataclasses import replace
from typing import Any

import httpx2

from chatd.core.oauth import Issuer
from chatd.core.tools import JsonObject
from chatd.oauth.attempts import Fault, shown
from chatd.oauth.challenge import scopes_of
from chatd.oauth.urls import origin, origin_text, parsed, path_of, well_known

_OAUTH, _OIDC = "oauth-authorization-server", "openid-configuration"
_NAME = re.compile(r"[\x21-\x7e]{1,100}")
_MAX = 50


def metadata_urls(issuer: httpx2.URL) -> tuple[str, ...]:
    """RFC 8414 sections 3.1 and 5, then OpenID Connect Discovery section 4, in MCP's order.

    A slash at the end of the issuer is left out before anything is put in (both RFCs).
    """
    path = path_of(issuer).rstrip("/")
    urls = [well_known(issuer, _OAUTH, path=path), well_known(issuer, _OIDC, path=path)]
    if path:
        urls.append(f"{origin_text(issuer)}{path}/.well-known/{_OIDC}")
    return tuple(urls)


def conventional(server_url: httpx2.URL) -> Issuer:
    """The endpoints of a server of 2025-03-26 that publishes no metadata ("fallbacks")."""
    root = origin_text(server_url)
    return Issuer(
        issuer=root,
        authorization_endpoint=f"{root}/authorize",
        token_endpoint=f"{root}/token",
        registration_endpoint=f"{root}/register",
    )


def same_issuer(said: str, asked: str) -> bool:
    """Equal as strings (RFC 8414, section 3.3).

    One exception: at the root of a host `https://host` and `https://host/` are one, since both lead
    to the same document. Libraries that print URLs add the slash on one side only.
    """
    if said == asked:
        return True
    url = parsed(said)
    return url is not None and path_of(url) == "/" and said.rstrip("/") == asked.rstrip("/")


_ENDPOINTS = (
    "authorization_endpoint",
    "token_endpoint",
    "registration_endpoint",
    "revocation_endpoint",
    "jwks_uri",
    "userinfo_endpoint",
    "end_session_endpoint",
)


def away(issuer: Issuer) -> frozenset[str]:
    """Names of its endpoints that are not at the origin of its name."""
    home = parsed(issuer.issuer)
    return frozenset(
        name
        for name in _ENDPOINTS
        if (text := getattr(issuer, name))
        and (home is None or (url := parsed(text)) is None or origin(url) != origin(home))
    )


def only_its_own(issuer: Issuer) -> Issuer | None:
    """Without the endpoints that are elsewhere; None if it is of no use without them."""
    foreign = away(issuer)
    if foreign & {"authorization_endpoint", "token_endpoint"}:
        return None
    return replace(issuer, **dict.fromkeys(foreign, ""))


def parse_issuer(
    value: JsonObject,
    at: httpx2.URL,
    *,
    asked: str | None,
    expected: str = "",
    requires_pkce: bool = True,
) -> Issuer | Fault:
    """`asked` None: whoever it says it is, the caller looks. `expected`: the only one it may say it
    is, whoever was asked for. Found over https, every endpoint has to be https; over http (which
    the guard lets pass only in networks of the allow-list) it may be http as well."""
    issuer = value.get("issuer")
    if not isinstance(issuer, str) or parsed(issuer) is None:
        return Fault("names no issuer", "invalid")
    if expected and issuer != expected:
        return _another(issuer, expected)
    if not expected and asked is not None and not same_issuer(issuer, asked):
        return _another(issuer, asked)
    for name, needed in _STRICT.items():
        fault = _endpoint_fault(value, name, at, needed=needed)
        if fault is not None:
            return fault
    methods = value.get("code_challenge_methods_supported")
    if requires_pkce and not (isinstance(methods, list) and "S256" in methods):
        return Fault("does not announce PKCE with S256", "pkce")
    return _issuer(value, issuer, at)


def _another(issuer: str, wanted: str) -> Fault:
    return Fault(f"its issuer is {shown(issuer)}, not {shown(wanted)}", "issuer", exactly(issuer))


def exactly(issuer: str) -> str:
    """A name that may be told letter by letter; empty: it may not."""
    return issuer if issuer == shown(issuer) else ""


_STRICT = {"authorization_endpoint": True, "token_endpoint": True, "registration_endpoint": False}
"""Whether a document without it is of no use; a bad one spoils the document in any case."""


def _endpoint_fault(value: JsonObject, name: str, at: httpx2.URL, *, needed: bool) -> Fault | None:
    text = value.get(name)
    if text is None or text == "":
        return Fault(f"has no {name}", "invalid") if needed else None
    url = parsed(text)
    if url is None or url.fragment or not str(text).isascii():
        return Fault(f"its {name} is not an https URL", "endpoint")
    if url.scheme == "http" and at.scheme != "http":
        return Fault(f"its {name} is http, not https", "endpoint")
    return None


def _issuer(value: JsonObject, issuer: str, at: httpx2.URL) -> Issuer:
    def optional(name: str) -> str:
        unusable = _endpoint_fault(value, name, at, needed=True)
        return "" if unusable else str(value[name])

    return Issuer(
        issuer=issuer,
        authorization_endpoint=value["authorization_endpoint"],
        token_endpoint=value["token_endpoint"],
        registration_endpoint=optional("registration_endpoint"),
        revocation_endpoint=optional("revocation_endpoint"),
        jwks_uri=optional("jwks_uri"),
        userinfo_endpoint=optional("userinfo_endpoint"),
        end_session_endpoint=optional("end_session_endpoint"),
        scopes_supported=scopes_of(value.get("scopes_supported")),
        auth_methods=_names(value.get("token_endpoint_auth_methods_supported")),
        signing_algorithms=_names(value.get("id_token_signing_alg_values_supported")),
        sends_issuer=value.get("authorization_response_iss_parameter_supported") is True,
        takes_metadata_documents=value.get("client_id_metadata_document_supported") is True,
    )


def _names(value: Any) -> tuple[str, ...]:
    names = value if isinstance(value, list) else []
    return tuple(each for each in names if isinstance(each, str) and _NAME.fullmatch(each))[:_MAX]
