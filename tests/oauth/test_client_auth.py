"""How a client proves itself: what goes into the form, what into the headers."""

import time
from base64 import b64decode
from collections.abc import Callable
from urllib.parse import unquote_plus

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from pydantic import SecretStr

from chatd.core.oauth import AUTH_METHODS, AuthMethod, Client
from chatd.oauth.client_auth import METHODS, prove
from chatd.oauth.errors import Refused
from tests.oauth.issuing import everything_told

AUDIENCE = "https://login.example/token"
SECRET = "s+c r/t:%é"


def client(method: AuthMethod, secret: str | None = SECRET, key_id: str = "") -> Client:
    hidden = None if secret is None else SecretStr(secret)
    return Client(client_id="a:b c", auth_method=method, secret=hidden, key_id=key_id)


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def jti(assertion: str) -> str:
    return jwt.decode(assertion, options={"verify_signature": False})["jti"]


def test_every_method_there_is_can_be_used() -> None:
    assert tuple(METHODS) == AUTH_METHODS


def test_a_public_client_only_says_its_name() -> None:
    assert prove(client("none"), AUDIENCE) == ({"client_id": "a:b c"}, {})


def test_client_secret_post_puts_both_into_the_form() -> None:
    form, headers = prove(client("client_secret_post"), AUDIENCE)
    assert (form, headers) == ({"client_id": "a:b c", "client_secret": SECRET}, {})


def test_client_secret_basic_encodes_each_half_so_that_a_colon_stays_in_its_half() -> None:
    form, headers = prove(client("client_secret_basic"), AUDIENCE)
    scheme, pair = headers["authorization"].split(" ")
    name, secret = b64decode(pair).decode().split(":")
    assert (form, scheme) == ({}, "Basic")
    assert (name, secret) == ("a%3Ab+c", "s%2Bc+r%2Ft%3A%25%C3%A9")
    assert (unquote_plus(name), unquote_plus(secret)) == ("a:b c", SECRET)


@pytest.mark.parametrize(
    ("make", "algorithm"),
    [
        (lambda: rsa.generate_private_key(65537, 2048), "RS256"),
        (lambda: ec.generate_private_key(ec.SECP256R1()), "ES256"),
        (lambda: ec.generate_private_key(ec.SECP384R1()), "ES384"),
        (ed25519.Ed25519PrivateKey.generate, "EdDSA"),
    ],
)
def test_private_key_jwt_signs_with_what_the_key_is_for(
    make: Callable[[], ec.EllipticCurvePrivateKey], algorithm: str
) -> None:
    key = make()
    form, headers = prove(client("private_key_jwt", pem(key), "key-7"), AUDIENCE)
    assertion = form["client_assertion"]
    claims = jwt.decode(assertion, key.public_key(), algorithms=[algorithm], audience=AUDIENCE)
    assert jwt.get_unverified_header(assertion) == {
        "alg": algorithm,
        "kid": "key-7",
        "typ": "JWT",
    }
    assert (claims["iss"], claims["sub"], claims["aud"]) == ("a:b c", "a:b c", AUDIENCE)
    assert claims["exp"] - claims["iat"] == 60
    assert abs(claims["iat"] - time.time()) < 5
    assert form["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    assert headers == {}


def test_no_two_assertions_are_the_same() -> None:
    signer = client("private_key_jwt", pem(ec.generate_private_key(ec.SECP256R1())))
    first, second = (prove(signer, AUDIENCE).form["client_assertion"] for _ in range(2))
    assert jti(first) != jti(second)
    assert "kid" not in jwt.get_unverified_header(first)


@pytest.mark.parametrize("method", ["client_secret_post", "client_secret_basic", "private_key_jwt"])
@pytest.mark.parametrize("secret", [None, ""])
def test_without_its_secret_nothing_is_sent(method: AuthMethod, secret: str | None) -> None:
    with pytest.raises(Refused, match="client_secret_missing") as refused:
        prove(client(method, secret), AUDIENCE)
    assert (refused.value.permanent, refused.value.client) == (False, False)


def unusable_keys() -> list[str]:
    short = rsa.generate_private_key(65537, 1024)
    strange = dsa.generate_private_key(1024).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    locked = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"locked"),
    )
    whole = pem(ec.generate_private_key(ec.SECP256R1()))
    brainpool = pem(ec.generate_private_key(ec.BrainpoolP256R1()))
    return ["no key at all", whole[:100], pem(short), strange.decode(), locked.decode(), brainpool]


def test_a_key_that_is_no_use_is_never_quoted() -> None:
    for key in unusable_keys():
        with pytest.raises(Refused, match="client_key_unusable") as refused:
            prove(client("private_key_jwt", key), AUDIENCE)
        told = everything_told(refused.value)
        assert not any(line in told for line in key.splitlines())
        assert refused.value.__context__ is None
