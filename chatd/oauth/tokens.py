"""A token endpoint: what is handed in for a token, and what comes back.

Every function raises Refused when the server said no, and Unreachable when it said nothing usable.
`issuer` is whom a signed client assertion is for, the endpoint itself when it is empty: servers
differ. `within_s` bounds the whole request.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

import httpx2
from pydantic import SecretStr

from chatd.core.oauth import Client, Grant
from chatd.oauth.challenge import scopes_of
from chatd.oauth.client_auth import prove, secrets_of
from chatd.oauth.endpoints import WITHIN_S, Answer, post
from chatd.oauth.errors import Refused, Unreachable

MAX_LIFETIME_S = 10 * 365 * 86400.0
"""Longer is as good as for ever, and would leave the calendar."""

_ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105  a type's name
_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"

_BEARER = frozenset({"", "bearer", "bot", "user"})
_PROVEN = frozenset({"dpop", "mac", "pop", "hok", "n_a"})
_SCHEME = re.compile(r"[A-Za-z0-9_-]{0,40}")
_SECRET_FIELDS = ("code", "code_verifier", "refresh_token", "subject_token")
_TOKENS = ("access_token", "refresh_token", "id_token")
_REFUSALS = frozenset({400, 401})
_TRANSIENT = frozenset({"server_error", "temporarily_unavailable"})
"""Error codes by which a server says that it is not itself."""


async def redeem(
    http: httpx2.AsyncClient,
    token_url: str,
    client: Client,
    *,
    code: str,
    verifier: str,
    redirect_uri: str,
    resource: str,
    issuer: str = "",
    within_s: float = WITHIN_S,
) -> Grant:
    """RFC 6749, section 4.1.3, with the verifier of RFC 7636."""
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "code_verifier": verifier,
        "redirect_uri": redirect_uri,
        "resource": resource,
    }
    return await _ask(http, token_url, client, form, issuer=issuer, within_s=within_s)


async def refresh(
    http: httpx2.AsyncClient,
    token_url: str,
    client: Client,
    *,
    refresh_token: SecretStr,
    resource: str,
    scopes: str = "",
    issuer: str = "",
    within_s: float = WITHIN_S,
) -> Grant:
    """RFC 6749, section 6. A grant without a refresh token leaves the old one in force."""
    form = {
        "grant_type": "refresh_token",
        "refresh_token": refresh_token.get_secret_value(),
        "resource": resource,
        "scope": scopes,
    }
    return await _ask(http, token_url, client, form, issuer=issuer, within_s=within_s)


async def client_credentials(
    http: httpx2.AsyncClient,
    token_url: str,
    client: Client,
    *,
    scopes: str,
    resource: str,
    issuer: str = "",
    within_s: float = WITHIN_S,
) -> Grant:
    """RFC 6749, section 4.4."""
    form = {"grant_type": "client_credentials", "scope": scopes, "resource": resource}
    return await _ask(http, token_url, client, form, issuer=issuer, within_s=within_s)


async def exchange(
    http: httpx2.AsyncClient,
    token_url: str,
    client: Client,
    *,
    subject_token: SecretStr,
    audience: str,
    resource: str,
    scopes: str,
    issuer: str = "",
    within_s: float = WITHIN_S,
) -> Grant:
    """RFC 8693, section 2.1: an access token for another one, for somebody else's ears."""
    form = {
        "grant_type": _EXCHANGE,
        "subject_token": subject_token.get_secret_value(),
        "subject_token_type": _ACCESS_TOKEN,
        "requested_token_type": _ACCESS_TOKEN,
        "audience": audience,
        "resource": resource,
        "scope": scopes,
    }
    return await _ask(http, token_url, client, form, issuer=issuer, within_s=within_s)


async def _ask(
    http: httpx2.AsyncClient,
    token_url: str,
    client: Client,
    form: Mapping[str, str],
    *,
    issuer: str,
    within_s: float,
) -> Grant:
    proof = prove(client, issuer or token_url)
    filled = {name: value for name, value in {**form, **proof.form}.items() if value}
    answer = await post(http, token_url, filled, headers=proof.headers, within_s=within_s)
    secrets = [filled[name] for name in _SECRET_FIELDS if name in filled]
    secrets += secrets_of(client, proof)
    return _grant(_members(answer, secrets), secrets)


def _members(answer: Answer, secrets: list[str]) -> Mapping[str, Any]:
    """Those of a success (RFC 6749, section 5.1); an `error` is one whatever the status."""
    members = answer.members()
    if members is None:
        raise _unexplained(answer.status, "without JSON")
    error = members.get("error")
    if isinstance(error, str) and error:
        if error in _TRANSIENT:
            raise Unreachable(error)
        raise Refused.saying(error, secrets)
    if answer.status not in (200, 201):
        raise _unexplained(answer.status, "without an error code")
    return members


def _unexplained(status: int, how: str) -> Refused | Unreachable:
    """The statuses of section 5.2 are a refusal, whatever is with them; of others nobody knows who
    has answered."""
    said = f"HTTP {status} {how}"
    return Refused(said) if status in _REFUSALS else Unreachable(said)


def _grant(members: Mapping[str, Any], secrets: Sequence[str]) -> Grant:
    user = members.get("authed_user")
    if "access_token" not in members and isinstance(user, dict):
        # Slack's place for the token of a user who installs no bot.
        members = cast(Mapping[str, Any], user)
    tokens = [members[name] for name in _TOKENS if isinstance(members.get(name), str)]
    return Grant(
        access_token=_access_token(members.get("access_token")),
        token_type=_token_type(members.get("token_type")),
        expires_in_s=_lifetime(members.get("expires_in")),
        refresh_token=_secret(members.get("refresh_token")),
        scope=_scope(members.get("scope"), [*secrets, *tokens]),
        id_token=_secret(members.get("id_token")),
    )


def _access_token(value: object) -> SecretStr:
    """One that can go into a header (RFC 6749, appendix A.12)."""
    if not isinstance(value, str) or not value:
        raise Unreachable("its answer holds no access token")
    if not (value.isascii() and value.isprintable()):
        raise Unreachable("its access token cannot go into a header")
    return SecretStr(value)


def _token_type(value: object) -> str:
    """Any spelling of bearer is Bearer, and so is none, and Slack's word for whose token it is.

    Another one goes into the header as it is, as the server will know it by, unless its tokens are
    of no use without a proof beside them (section 7.1) or are none for a header (RFC 8693).
    """
    kind = "" if value is None else value
    if not isinstance(kind, str) or kind.lower() in _PROVEN or not _SCHEME.fullmatch(kind):
        raise Refused("unsupported_token_type")
    return "Bearer" if kind.lower() in _BEARER else kind


def _lifetime(value: object) -> float | None:
    """None: not known. Zero and less mean that too, as servers say so of tokens that never end."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return None
    if math.isnan(seconds) or seconds <= 0:
        return None
    return min(seconds, MAX_LIFETIME_S)


def _secret(value: object) -> SecretStr | None:
    return SecretStr(value) if isinstance(value, str) and value else None


def _scope(value: object, secrets: Sequence[str]) -> str | None:
    """Some servers send a list where a string with spaces belongs (section 3.3). What is no scope
    token is left out: a database can hold no NUL, and the grant must not be lost for it. So is a
    secret, as scopes are stored and shown in the clear."""
    words = value.split() if isinstance(value, str) else value
    if not isinstance(words, list):
        return None
    return " ".join(word for word in scopes_of(cast(object, words)) if word not in secrets)
