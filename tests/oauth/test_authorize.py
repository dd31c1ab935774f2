"""The URL a browser is sent to, and the issuer of what comes back."""

import re
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import pytest

from chatd.core.oauth import Client, Issuer
from chatd.oauth.authorize import (
    authorization_url,
    challenge_of,
    check_answer_issuer,
    new_verifier,
)
from chatd.oauth.errors import MixedUp, Unreachable

ISSUER = Issuer(
    issuer="https://login.example/tenant",
    authorization_endpoint="https://login.example/authorize",
    token_endpoint="https://login.example/token",
)
CLIENT = Client(client_id="chatd & co")


def url(endpoint: str = ISSUER.authorization_endpoint, **changed: str) -> str:
    arguments = {
        "redirect_uri": "https://chatd.example/callback?a=1",
        "scopes": "read write",
        "state": "s+t/a=te",
        "verifier": "v" * 43,
        "resource": "https://mcp.example/mcp",
        **changed,
    }
    return authorization_url(replace(ISSUER, authorization_endpoint=endpoint), CLIENT, **arguments)


def query(url: str) -> dict[str, list[str]]:
    return parse_qs(urlsplit(url).query, keep_blank_values=True)


def test_a_verifier_is_long_enough_of_the_right_alphabet_and_never_the_same() -> None:
    verifiers = {new_verifier() for _ in range(100)}
    assert len(verifiers) == 100
    assert all(re.fullmatch(r"[A-Za-z0-9._~-]{43,128}", each) for each in verifiers)


def test_the_challenge_is_that_of_rfc_7636() -> None:
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    assert challenge_of(verifier) == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


def test_everything_is_asked_for_once_and_arrives_as_it_was() -> None:
    assert query(url()) == {
        "response_type": ["code"],
        "client_id": ["chatd & co"],
        "redirect_uri": ["https://chatd.example/callback?a=1"],
        "scope": ["read write"],
        "state": ["s+t/a=te"],
        "code_challenge": [challenge_of("v" * 43)],
        "code_challenge_method": ["S256"],
        "resource": ["https://mcp.example/mcp"],
    }


def test_the_verifier_itself_never_leaves() -> None:
    assert "v" * 43 not in url()


def test_nonce_and_prompt_are_there_only_when_given() -> None:
    asked = query(url(nonce="n", prompt="consent"))
    assert (asked["nonce"], asked["prompt"]) == (["n"], ["consent"])


def test_what_is_empty_is_left_out() -> None:
    assert not {"scope", "resource"} & query(url(scopes="", resource="")).keys()


def test_the_endpoints_own_query_stays_letter_by_letter() -> None:
    sent = url("https://login.example/authorize?audience=a%2fb&flag&tenant=7")
    assert urlsplit(sent).query.startswith("audience=a%2fb&flag&tenant=7&response_type=code&")


@pytest.mark.parametrize(
    "own",
    [
        "redirect_uri=https://evil.example",
        "code_challenge_method=plain",
        "%63lient_id=evil",
        "resource=x",
    ],
)
def test_the_endpoints_own_query_cannot_say_what_is_ours_to_say(own: str) -> None:
    sent = url(f"https://login.example/authorize?{own}&kept=1")
    assert query(sent) == {"kept": ["1"], **query(url())}


def test_the_endpoints_own_query_may_say_what_we_leave_unsaid() -> None:
    google = "https://login.example/authorize?access_type=offline&prompt=consent"
    assert query(url(google))["prompt"] == ["consent"]
    assert query(url(google, prompt="login"))["prompt"] == ["login"]


def test_a_fragment_does_not_swallow_the_question() -> None:
    assert url("https://login.example/authorize#here") == url()


@pytest.mark.parametrize(
    "endpoint",
    [
        "javascript:alert(1)//",
        "data:text/html,x",
        "https://",
        "/authorize",
        "",
        "https://u:p@login.example/",
        "https://@login.example/",
        "https://evil.example\\.login.example/",
        "https://a\u2100b.example/",
        "https://[::1/",
    ],
)
def test_no_browser_is_sent_to_what_is_no_web_address(endpoint: str) -> None:
    with pytest.raises(Unreachable):
        url(endpoint)


def test_the_issuer_that_was_asked_may_answer() -> None:
    check_answer_issuer(ISSUER, ISSUER.issuer)
    check_answer_issuer(replace(ISSUER, sends_issuer=True), ISSUER.issuer)


@pytest.mark.parametrize(
    "iss",
    [
        "https://login.example/tenant/",
        "https://LOGIN.example/tenant",
        "https://login.example:443/tenant",
        "https://login.example/%74enant",
        "http://login.example/tenant",
        "https://evil.example",
        "",
    ],
)
@pytest.mark.parametrize("sends_issuer", [False, True])
def test_any_other_issuer_is_a_mix_up_however_alike(iss: str, sends_issuer: bool) -> None:
    with pytest.raises(MixedUp) as refused:
        check_answer_issuer(replace(ISSUER, sends_issuer=sends_issuer), iss)
    assert not iss or iss not in str(refused.value)


def test_an_answer_without_issuer_is_refused_only_of_a_server_that_sends_it() -> None:
    check_answer_issuer(ISSUER, None)
    with pytest.raises(MixedUp):
        check_answer_issuer(replace(ISSUER, sends_issuer=True), None)


def test_a_server_configured_without_a_name_may_call_itself_anything() -> None:
    check_answer_issuer(replace(ISSUER, issuer=""), "https://whoever.example")
