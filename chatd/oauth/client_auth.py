"""How a client proves itself to an endpoint of its authorization server."""

import time
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import quote_plus
from uuid import uuid4

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from chatd.core.oauth import AuthMethod, Client
from chatd.oauth.errors import Refused

_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_ASSERTION_S = 60
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}

_JWT = jwt.PyJWT({"enforce_minimum_key_length": True})

_Key = RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey


class Proof(NamedTuple):
    """What is added to a request."""

    form: Mapping[str, str]
    headers: Mapping[str, str]


def prove(client: Client, audience: str) -> Proof:
    """`audience`: whom a signed assertion is for, an issuer or the endpoint itself.

    Raises Refused, before anything is sent, when the secret or key is missing or no use.
    """
    return METHODS[client.auth_method](client, audience)


def secrets_of(client: Client, proof: Proof) -> Sequence[str]:
    """What no answer may have repeated in a log."""
    own = [client.secret.get_secret_value()] if client.secret else []
    return [*own, *(value.rpartition(" ")[2].rstrip("=") for value in proof.headers.values())]


def _none(client: Client, audience: str) -> Proof:
    return Proof({"client_id": client.client_id}, {})


def _client_secret_post(client: Client, audience: str) -> Proof:
    return Proof({"client_id": client.client_id, "client_secret": _secret(client)}, {})


def _client_secret_basic(client: Client, audience: str) -> Proof:
    """Both halves are form-encoded first (RFC 6749, section 2.3.1)."""
    pair = f"{quote_plus(client.client_id)}:{quote_plus(_secret(client))}"
    return Proof({}, {"authorization": f"Basic {b64encode(pair.encode()).decode()}"})


def _private_key_jwt(client: Client, audience: str) -> Proof:
    """RFC 7523, sections 2.2 and 3."""
    now = int(time.time())
    claims = {
        "iss": client.client_id,
        "sub": client.client_id,
        "aud": audience,
        "jti": str(uuid4()),
        "iat": now,
        "exp": now + _ASSERTION_S,
    }
    form = {
        "client_id": client.client_id,
        "client_assertion_type": _ASSERTION_TYPE,
        "client_assertion": _signed(client, claims),
    }
    return Proof(form, {})


METHODS: Mapping[AuthMethod, Callable[[Client, str], Proof]] = {
    "none": _none,
    "client_secret_post": _client_secret_post,
    "client_secret_basic": _client_secret_basic,
    "private_key_jwt": _private_key_jwt,
}


def _secret(client: Client) -> str:
    if client.secret is None or not client.secret.get_secret_value():
        raise Refused("client_secret_missing")
    return client.secret.get_secret_value()


def _signed(client: Client, claims: dict[str, str | int]) -> str:
    pem = _secret(client).encode()
    headers = {"kid": client.key_id} if client.key_id else None
    try:
        key = load_pem_private_key(pem, password=None)
        algorithm = _algorithm(key)
        if isinstance(key, _Key) and algorithm:
            return _JWT.encode(claims, key, algorithm=algorithm, headers=headers)
    except (ValueError, TypeError, UnsupportedAlgorithm, jwt.PyJWTError):
        # No word of it goes on: it may quote the key.
        pass
    raise Refused("client_key_unusable")


def _algorithm(key: object) -> str:
    """By the key's type; "" for one that no server would take."""
    match key:
        case RSAPrivateKey():
            return "RS256"
        case EllipticCurvePrivateKey():
            return _CURVES.get(key.curve.name, "")
        case Ed25519PrivateKey():
            return "EdDSA"
        case _:
            return ""
