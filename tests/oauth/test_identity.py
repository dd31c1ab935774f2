"""ID tokens: which are believed, and how often their issuer's keys are fetched."""

import asyncio
import hmac
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from typing import Any

import jwt
import orjson
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from pydantic import SecretStr

from chatd.core.oauth import Client
from chatd.oauth.errors import BadIdentity, Unreachable
from chatd.oauth.identity import Jwks, verify_id_token
from tests.oauth.issuing import Issuing, Say, everything_told, issuing, json, silence, text

CLIENT = Client(client_id="chatd")
NONCE = "canary-nonce"
RSA = rsa.generate_private_key(65537, 2048)
OTHER_RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Provider:
    """Signs, and shows its keys on loopback."""

    def __init__(self, peer: Issuing) -> None:
        self.peer = peer
        self.clock = Clock()
        self.keys = Jwks(peer.http, peer.issuer.jwks_uri, clock=self.clock)
        self.issuer = peer.issuer
        self.shows(jwk(RSA, "first"))

    def shows(self, *keys: object) -> None:
        self.peer.says(json({"keys": keys}))

    @property
    def fetches(self) -> int:
        return len(self.peer.heard)

    def claims(self, **changed: Any) -> dict[str, Any]:
        now = int(time.time())
        claims = {
            "iss": self.issuer.issuer,
            "sub": "ada",
            "aud": "chatd",
            "exp": now + 300,
            "iat": now,
            "nonce": NONCE,
            **changed,
        }
        return {name: value for name, value in claims.items() if value is not ...}

    def signed(
        self, key: Key = RSA, kid: str | None = "first", algorithm: str = "RS256", **changed: Any
    ) -> str:
        headers = {} if kid is None else {"kid": kid}
        return jwt.encode(self.claims(**changed), key, algorithm, headers)

    async def verify(self, token: str, nonce: str | None = NONCE) -> Mapping[str, Any]:
        return await verify_id_token(self.keys, self.issuer, CLIENT, SecretStr(token), nonce=nonce)

    async def refusal(self, token: str, nonce: str | None = NONCE) -> str:
        """Why it is refused; nothing of it may be in what is raised."""
        with pytest.raises(BadIdentity) as refused:
            await self.verify(token, nonce)
        told = everything_told(refused.value)
        assert not [part for part in token.split(".") if part and part in told]
        assert NONCE not in told
        assert refused.value.__context__ is None
        return refused.value.reason


@pytest.fixture
async def provider() -> AsyncGenerator[Provider]:
    async with issuing() as peer:
        yield Provider(peer)


def jwk(key: Key, kid: str | None = None, **members: Any) -> dict[str, Any]:
    match key:
        case rsa.RSAPrivateKey():
            shown = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
        case ec.EllipticCurvePrivateKey():
            shown = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
        case _:
            shown = OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
    shown.pop("key_ops", None)
    return {**shown, **({} if kid is None else {"kid": kid}), **members}


def segment(value: object) -> str:
    return urlsafe_b64encode(orjson.dumps(value)).rstrip(b"=").decode()


# Whose signature


async def test_a_good_token_tells_its_claims(provider: Provider) -> None:
    claims = await provider.verify(provider.signed(email="ada@example.com"))
    assert (claims["sub"], claims["email"]) == ("ada", "ada@example.com")


@pytest.mark.parametrize(("key", "algorithm"), [(RSA, "PS256"), (EC, "ES256"), (ED, "EdDSA")])
async def test_every_kind_of_key_pair_will_do(provider: Provider, key: Key, algorithm: str) -> None:
    provider.shows(jwk(key, "first", use="sig", alg=algorithm))
    await provider.verify(provider.signed(key, algorithm=algorithm))


@pytest.mark.parametrize("name", ["none", "None", "nOnE", "", "HS256", 7, None])
async def test_a_token_nobody_signed_is_refused_before_any_key_is_fetched(
    provider: Provider, name: Any
) -> None:
    header = {"typ": "JWT", "kid": "first"} | ({} if name is None else {"alg": name})
    for signature in ("", "AAAA"):
        token = f"{segment(header)}.{segment(provider.claims())}.{signature}"
        assert await provider.refusal(token) == "its algorithm is not allowed"
    assert provider.fetches == 0


async def test_a_public_key_is_no_shared_secret(provider: Provider) -> None:
    public = RSA.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    octets = urlsafe_b64encode(public).decode()
    head = f"{segment({'alg': 'HS256', 'kid': 'first'})}.{segment(provider.claims())}"
    signature = urlsafe_b64encode(hmac.digest(public, head.encode(), "sha256")).rstrip(b"=")
    token = f"{head}.{signature.decode()}"
    provider.shows(jwk(RSA, "first"), {"kty": "oct", "k": octets, "kid": "first"})
    provider.issuer = replace(provider.issuer, signing_algorithms=("RS256", "HS256"))
    assert await provider.refusal(token) == "its algorithm is not allowed"


async def test_an_algorithm_the_issuer_does_not_use_is_refused(provider: Provider) -> None:
    provider.issuer = replace(provider.issuer, signing_algorithms=("ES256", "HS256"))
    assert await provider.refusal(provider.signed()) == "its algorithm is not allowed"


async def test_another_key_under_the_same_name_is_refused(provider: Provider) -> None:
    assert await provider.refusal(provider.signed(OTHER_RSA)) == "its signature is wrong"


async def test_changed_claims_break_the_signature(provider: Provider) -> None:
    head, _, signature = provider.signed().split(".")
    forged = f"{head}.{segment(provider.claims(sub='eve'))}.{signature}"
    assert await provider.refusal(forged) == "its signature is wrong"


@pytest.mark.parametrize(
    "shown",
    [
        jwk(RSA, "first", use="enc"),
        jwk(RSA, "first", alg="RS512"),
        jwk(EC, "first"),
        {"kty": "RSA", "kid": "first", "n": "AQAB"},
        {"kid": "first"},
        {"kty": "RSA", "kid": ["first"], "n": 7, "e": None},
    ],
)
async def test_a_key_for_something_else_is_none(provider: Provider, shown: dict[str, Any]) -> None:
    provider.shows("junk", 7, shown)
    assert await provider.refusal(provider.signed()) == "its key is not the issuer's"


async def test_a_key_of_another_curve_is_none(provider: Provider) -> None:
    other = ec.generate_private_key(ec.SECP384R1())
    provider.shows(jwk(other, "first"))
    token = provider.signed(EC, algorithm="ES256")
    assert await provider.refusal(token) == "its key is not the issuer's"


async def test_a_short_key_is_refused(provider: Provider) -> None:
    short = rsa.generate_private_key(65537, 1024)
    provider.shows(jwk(short, "first"))
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        token = provider.signed(short)
    assert await provider.refusal(token) == "its key does not fit"


@pytest.mark.parametrize(
    "token",
    ["", "a", "a.b", "a.b.c", "a.b.c.d.e", "é.é.é", "\ud800.a.b", f"{segment([])}.e30.", "[.[.["],
)
async def test_what_is_no_token_is_malformed(provider: Provider, token: str) -> None:
    with pytest.raises(BadIdentity, match="malformed"):
        await provider.verify(token)


@pytest.mark.parametrize("extra", [{"kid": 7}, {"crit": ["exp"]}, {"b64": False}])
async def test_a_header_we_do_not_understand_is_malformed(
    provider: Provider, extra: dict[str, Any]
) -> None:
    header = {"alg": "RS256", "kid": "first", **extra}
    token = f"{segment(header)}.{segment(provider.claims())}.AAAA"
    assert await provider.refusal(token) == "it is malformed"


# Whose claims


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"iss": "https://evil.example"}, "it is from another issuer"),
        ({"iss": ...}, "a claim is missing"),
        ({"aud": "another"}, "it is for another client"),
        ({"aud": ["another"]}, "it is for another client"),
        ({"aud": []}, "a claim is missing"),
        ({"aud": ["chatd", 7]}, "it is for another client"),
        ({"aud": ...}, "a claim is missing"),
        (
            {"aud": ["chatd", "another"]},
            "it does not say which of its audiences it is for",
        ),
        ({"aud": ["chatd", "another"], "azp": "another"}, "it is for another client"),
        ({"azp": "another"}, "it is for another client"),
        ({"azp": ["chatd"]}, "it is for another client"),
        ({"exp": ...}, "a claim is missing"),
        ({"exp": "soon"}, "it is malformed"),
        ({"exp": 1}, "it has expired"),
        ({"iat": ...}, "a claim is missing"),
        ({"iat": "now"}, "it is malformed"),
        ({"sub": ...}, "a claim is missing"),
        ({"sub": 7}, "it is malformed"),
        ({"sub": ""}, "it does not say who its user is"),
        ({"sub": " "}, "it does not say who its user is"),
        ({"sub": "a\0da"}, "it does not say who its user is"),
        ({"sub": "a" * 256}, "it does not say who its user is"),
        ({"nonce": ...}, "it has no nonce"),
        ({"nonce": ""}, "its nonce is another login's"),
        ({"nonce": 7}, "it has no nonce"),
        ({"nonce": "another"}, "its nonce is another login's"),
        ({"nonce": "é"}, "its nonce is another login's"),
    ],
)
async def test_claims_that_do_not_fit_are_refused(
    provider: Provider, changed: dict[str, Any], reason: str
) -> None:
    assert await provider.refusal(provider.signed(**changed)) == reason


@pytest.mark.parametrize("trailing", ["/", "/tenant"])
async def test_an_issuer_is_compared_letter_by_letter(provider: Provider, trailing: str) -> None:
    token = provider.signed(iss=provider.issuer.issuer + trailing)
    assert await provider.refusal(token) == "it is from another issuer"


async def test_an_issuer_without_a_name_vouches_for_nobody(provider: Provider) -> None:
    provider.issuer = replace(provider.issuer, issuer="")
    token = provider.signed(iss="")
    assert await provider.refusal(token) == "nobody said who its issuer should be"


async def test_among_several_audiences_azp_may_name_us(provider: Provider) -> None:
    await provider.verify(provider.signed(aud=["chatd", "another"], azp="chatd"))
    await provider.verify(provider.signed(aud=["chatd"]))


async def test_clocks_may_differ_by_a_minute_and_no_more(provider: Provider) -> None:
    now = int(time.time())
    await provider.verify(provider.signed(iat=now + 50))
    await provider.verify(provider.signed(exp=now - 50))
    assert await provider.refusal(provider.signed(iat=now + 70)) == "it is from the future"
    assert await provider.refusal(provider.signed(nbf=now + 70)) == "it is from the future"
    assert await provider.refusal(provider.signed(exp=now - 61)) == "it has expired"


async def test_a_nonce_is_not_looked_for_only_when_none_was_sent(provider: Provider) -> None:
    await provider.verify(provider.signed(nonce=...), None)
    assert await provider.refusal(provider.signed(nonce=""), "") == "it has no nonce"


# Fetching keys


async def test_keys_are_fetched_once_for_many_tokens(provider: Provider) -> None:
    for _ in range(3):
        await provider.verify(provider.signed())
    assert [(heard.method, heard.path) for heard in provider.peer.heard] == [("GET", "/jwks")]


async def test_logins_at_the_same_time_share_one_fetch(provider: Provider) -> None:
    await asyncio.gather(*(provider.verify(provider.signed()) for _ in range(10)))
    assert provider.fetches == 1


async def test_an_unknown_key_has_them_fetched_once_more(provider: Provider) -> None:
    await provider.verify(provider.signed())
    provider.clock.now += 31
    provider.shows(jwk(RSA, "first"), jwk(OTHER_RSA, "second"))
    many = (provider.verify(provider.signed(OTHER_RSA, "second")) for _ in range(5))
    await asyncio.gather(*many)
    assert provider.fetches == 2
    await provider.verify(provider.signed())


async def test_unknown_keys_do_not_make_us_ask_again_and_again(provider: Provider) -> None:
    await provider.verify(provider.signed())
    for after, fetches in ((0.0, 1), (29.0, 1), (1.0, 2), (5.0, 2), (24.9, 2), (0.2, 3)):
        provider.clock.now += after
        for _ in range(3):
            reason = await provider.refusal(provider.signed(OTHER_RSA, "unknown"))
            assert reason == "its key is not the issuer's"
        assert provider.fetches == fetches


async def test_unknown_keys_do_not_hammer_an_issuer_that_is_down(provider: Provider) -> None:
    await provider.verify(provider.signed())
    provider.clock.now += 31
    provider.peer.says(text(b"", status=503))
    with pytest.raises(Unreachable, match="HTTP 503"):
        await provider.verify(provider.signed(OTHER_RSA, "unknown"))
    assert await provider.refusal(provider.signed(OTHER_RSA, "unknown"))
    await provider.verify(provider.signed())
    assert provider.fetches == 2


@pytest.mark.parametrize("kid", ["first", None])
async def test_a_key_changed_under_the_same_name_or_none_is_found(
    provider: Provider, kid: str | None
) -> None:
    provider.shows(jwk(RSA, kid))
    await provider.verify(provider.signed(kid=kid))
    provider.clock.now += 31
    provider.shows(jwk(OTHER_RSA, kid))
    await provider.verify(provider.signed(OTHER_RSA, kid))
    assert await provider.refusal(provider.signed(kid=kid)) == "its signature is wrong"
    assert provider.fetches == 2


async def test_a_key_its_issuer_withdrew_is_forgotten_within_the_hour(provider: Provider) -> None:
    await provider.verify(provider.signed())
    provider.shows(jwk(OTHER_RSA, "second"))
    provider.clock.now += 3599
    await provider.verify(provider.signed())
    provider.clock.now += 1
    assert await provider.refusal(provider.signed()) == "its key is not the issuer's"


async def test_without_a_name_the_only_key_for_the_algorithm_is_meant(provider: Provider) -> None:
    provider.shows(jwk(RSA, "first"), jwk(EC, "second"), jwk(OTHER_RSA, "third", use="enc"))
    await provider.verify(provider.signed(kid=None))
    await provider.verify(provider.signed(EC, None, "ES256"))


async def test_without_a_name_no_key_is_guessed_among_several(provider: Provider) -> None:
    provider.shows(jwk(RSA, "first"), jwk(OTHER_RSA, "second"))
    assert await provider.refusal(provider.signed(kid=None)) == "its key is not the issuer's"


@pytest.mark.parametrize(
    ("say", "why"),
    [
        (text(b"<html>"), "it shows no keys"),
        (json({"keys": {}}), "it shows no keys"),
        (json([]), "it shows no keys"),
        (json({"keys": []}, status=404), "it shows no keys"),
        (json({"keys": ["x" * 300 * 1024]}), "too large"),
        (text(b"", status=500), "HTTP 500"),
        (json({}, status=302, headers="location: /elsewhere\r\n"), "not followed"),
    ],
)
async def test_keys_that_cannot_be_had_are_nobodys_fault_and_asked_for_again(
    provider: Provider, say: Say, why: str
) -> None:
    provider.peer.says(say)
    with pytest.raises(Unreachable, match=why):
        await provider.verify(provider.signed())
    provider.shows(jwk(RSA, "first"))
    await provider.verify(provider.signed())
    assert provider.fetches == 2


async def test_an_issuer_that_hangs_is_left_in_time(provider: Provider) -> None:
    provider.peer.says(silence)
    keys = Jwks(provider.peer.http, provider.issuer.jwks_uri, within_s=0.05)
    with pytest.raises(Unreachable, match="no answer in time"):
        await keys.find("first", "RS256")


async def test_a_crowd_waits_for_an_issuer_that_hangs_no_longer_than_one(
    provider: Provider,
) -> None:
    provider.peer.says(silence)
    keys = Jwks(provider.peer.http, provider.issuer.jwks_uri, within_s=0.2)
    crowd = (keys.find("first", "RS256") for _ in range(20))
    async with asyncio.timeout(2.0):
        found = await asyncio.gather(*crowd, return_exceptions=True)
    assert {type(each) for each in found} == {Unreachable}
    assert provider.fetches == 1
