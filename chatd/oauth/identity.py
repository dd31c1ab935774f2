"""Who logged in: ID tokens of OpenID Connect, and the keys that sign them."""

import asyncio
import hmac
import time
from collections.abc import Callable, Mapping
from typing import Any, cast

import httpx2
import jwt
from pydantic import SecretStr

from chatd.core.oauth import Client, Issuer
from chatd.core.text import is_line
from chatd.oauth.endpoints import WITHIN_S, get
from chatd.oauth.errors import BadIdentity, Unreachable

ALGORITHMS = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
)
"""Only with a key pair: under a shared key, whoever can check a token can make one."""

LEEWAY_S = 60.0
REFETCH_S = 30.0
FRESH_S = 3600.0
_REQUIRED = ["iss", "sub", "aud", "exp", "iat"]
_JWT = jwt.PyJWT({"enforce_minimum_key_length": True})

_MAX_SUBJECT = 255
_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}

_REASONS: Mapping[type[Exception], str] = {
    jwt.ExpiredSignatureError: "it has expired",
    jwt.ImmatureSignatureError: "it is from the future",
    jwt.InvalidAudienceError: "it is for another client",
    jwt.InvalidIssuerError: "it is from another issuer",
    jwt.MissingRequiredClaimError: "a claim is missing",
    jwt.InvalidSignatureError: "its signature is wrong",
    jwt.InvalidAlgorithmError: "its algorithm is not allowed",
    jwt.InvalidKeyError: "its key does not fit",
}


class Jwks:
    """An issuer's public keys (RFC 7517): fetched when first needed, and again hourly.

    A key that is unknown, or does not fit, has them fetched once more, but not within `refetch_s`
    of the last time: a stranger's token must not make us ask. Share one per issuer.
    """

    def __init__(
        self,
        http: httpx2.AsyncClient,
        url: str,
        *,
        refetch_s: float = REFETCH_S,
        within_s: float = WITHIN_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http = http
        self._url = url
        self._refetch_s = refetch_s
        self._within_s = within_s
        self._clock = clock
        self._keys: tuple[Mapping[str, Any], ...] = ()
        self._fetched_at = 0.0
        self._tried_at = 0.0
        self._failures = 0
        self._lock = asyncio.Lock()

    async def find(self, kid: str, algorithm: str) -> jwt.PyJWK | None:
        """Without `kid` the one key for this algorithm, if there is but one (OIDC Core, 10.1)."""
        if not self._keys or self._clock() - self._fetched_at >= FRESH_S:
            await self._fetch(0.0)
        return self._known(kid, algorithm) or await self.find_newer(kid, algorithm)

    async def find_newer(self, kid: str, algorithm: str) -> jwt.PyJWK | None:
        """After a look at the issuer, if that is allowed by now."""
        await self._fetch(self._refetch_s)
        return self._known(kid, algorithm)

    async def _fetch(self, every_s: float) -> None:
        """Who had to wait for another's fetch takes what that one brought, and fails with it: a
        queue of fetches from an issuer that hangs would have no end."""
        before, failures = self._keys, self._failures
        async with self._lock:
            if self._keys is not before:
                return
            if self._failures != failures:
                raise Unreachable("it shows no keys")
            if self._clock() - self._tried_at < every_s:
                return
            try:
                await self._load()
            except Unreachable:
                self._failures += 1
                raise

    async def _load(self) -> None:
        self._tried_at = self._clock()
        answer = await get(self._http, self._url, within_s=self._within_s)
        keys = (answer.members() or {}).get("keys")
        if answer.status != 200 or not isinstance(keys, list):
            raise Unreachable("it shows no keys")
        self._fetched_at = self._clock()
        self._keys = tuple(
            cast(Mapping[str, Any], each)
            for each in cast(list[object], keys)
            if isinstance(each, dict)
        )

    def _known(self, kid: str, algorithm: str) -> jwt.PyJWK | None:
        named = [key for key in self._keys if not kid or key.get("kid") == kid]
        fitting = [key for each in named if (key := _key(each, algorithm)) is not None]
        return fitting[0] if len(fitting) == 1 or (kid and fitting) else None


async def verify_id_token(
    keys: Jwks, issuer: Issuer, client: Client, id_token: SecretStr, *, nonce: str | None
) -> Mapping[str, Any]:
    """The claims, checked as OIDC Core, section 3.1.3.7, says; `sub` is a string.

    `nonce` None: of a refresh, where none was sent (section 12.2). Raises BadIdentity, and
    Unreachable when the keys cannot be had.
    """
    token = id_token.get_secret_value()
    kid, algorithm = _header(token, issuer)
    key = await keys.find(kid, algorithm)
    outcome = _verified(token, key, algorithm, issuer, client)
    if isinstance(outcome, jwt.InvalidSignatureError):
        # An issuer may change its key under the same name, or none.
        key = await keys.find_newer(kid, algorithm)
        outcome = _verified(token, key, algorithm, issuer, client)
    if isinstance(outcome, Exception):
        raise BadIdentity(_REASONS.get(type(outcome), "it is malformed"))
    _check_subject(outcome)
    _check_party(outcome, client)
    _check_nonce(outcome, nonce)
    return outcome


def _header(token: str, issuer: Issuer) -> tuple[str, str]:
    """Key id and algorithm, of which only the latter is to be believed."""
    header: Mapping[str, Any] | None
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError):
        header = None
    if header is None:
        raise BadIdentity("it is malformed")
    algorithm = header.get("alg")
    offered = issuer.signing_algorithms or ALGORITHMS
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS or algorithm not in offered:
        raise BadIdentity("its algorithm is not allowed")
    return header.get("kid") or "", algorithm


def _verified(
    token: str, key: jwt.PyJWK | None, algorithm: str, issuer: Issuer, client: Client
) -> Mapping[str, Any] | Exception:
    """The error is a value, so that what is raised of it has no context to quote from."""
    if key is None:
        raise BadIdentity("its key is not the issuer's")
    if not issuer.issuer:
        raise BadIdentity("nobody said who its issuer should be")
    try:
        return _JWT.decode(
            token,
            key,
            algorithms=[algorithm],
            audience=client.client_id,
            issuer=issuer.issuer,
            leeway=LEEWAY_S,
            options={"require": _REQUIRED},
        )
    except (jwt.PyJWTError, ValueError) as error:
        return error


def _key(data: Mapping[str, Any], algorithm: str) -> jwt.PyJWK | None:
    """None for a key that is for something else (RFC 7517, section 4)."""
    if data.get("use", "sig") != "sig" or data.get("alg", algorithm) != algorithm:
        return None
    if algorithm in _CURVES and data.get("crv") != _CURVES[algorithm]:
        return None
    try:
        return jwt.PyJWK(dict(data), algorithm=algorithm)
    except (jwt.PyJWTError, ValueError, TypeError):
        return None


def _check_subject(claims: Mapping[str, Any]) -> None:
    """It names a user, for ever: 1 to 255 characters (OIDC Core, section 2)."""
    subject = claims["sub"]
    if not subject.strip() or len(subject) > _MAX_SUBJECT or not is_line(subject):
        raise BadIdentity("it does not say who its user is")


def _check_party(claims: Mapping[str, Any], client: Client) -> None:
    """Among several audiences `azp` says for whom it was made."""
    audience = claims["aud"]
    party = claims.get("azp")
    if party is None and isinstance(audience, list) and len(cast(list[object], audience)) > 1:
        raise BadIdentity("it does not say which of its audiences it is for")
    if party is not None and party != client.client_id:
        raise BadIdentity("it is for another client")


def _check_nonce(claims: Mapping[str, Any], nonce: str | None) -> None:
    if nonce is None:
        return
    found = claims.get("nonce")
    if not nonce or not isinstance(found, str):
        raise BadIdentity("it has no nonce")
    if not hmac.compare_digest(found.encode(), nonce.encode()):
        raise BadIdentity("its nonce is another login's")
