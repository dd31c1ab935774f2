"""Sending a browser to an authorization server, and knowing its answer from another's."""

import hashlib
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Container
from urllib.parse import quote, unquote_plus, urlencode, urlsplit, urlunsplit

from chatd.core.oauth import Client, Issuer
from chatd.oauth.errors import MixedUp, Unreachable
from chatd.oauth.urls import parsed

_VERIFIER_BYTES = 64


def new_verifier() -> str:
    """A PKCE code verifier: 86 characters of the 43 to 128 that RFC 7636, section 4.1, allows."""
    return secrets.token_urlsafe(_VERIFIER_BYTES)


def challenge_of(verifier: str) -> str:
    """S256 of RFC 7636, section 4.2; there is no other method here."""
    digest = hashlib.sha256(verifier.encode()).digest()
    return urlsafe_b64encode(digest).rstrip(b"=").decode()


def authorization_url(
    issuer: Issuer,
    client: Client,
    *,
    redirect_uri: str,
    scopes: str,
    state: str,
    verifier: str,
    resource: str,
    nonce: str = "",
    prompt: str = "",
) -> str:
    """RFC 6749, section 4.1.1, with S256 and RFC 8707's `resource`; what is empty is left out.

    The endpoint's own query stays as it is (section 3.1), but for names that we set: no parameter
    may come twice. An administrator may need one that is ours, as in Google's `prompt=consent`,
    without which there is no second refresh token. Raises Unreachable when the endpoint is nothing
    to send a browser to, a `javascript:` URL for one.
    """
    ours = {
        "response_type": "code",
        "client_id": client.client_id,
        "redirect_uri": redirect_uri,
        "scope": scopes,
        "state": state,
        "code_challenge": challenge_of(verifier),
        "code_challenge_method": "S256",
        "resource": resource,
        "nonce": nonce,
        "prompt": prompt,
    }
    if parsed(issuer.authorization_endpoint) is None:
        raise Unreachable("its authorization endpoint is no web address")
    parts = urlsplit(issuer.authorization_endpoint)
    sent = {name: value for name, value in ours.items() if value}
    query = "&".join([*_without(parts.query, sent), urlencode(sent, quote_via=quote)])
    return urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))


def _without(query: str, names: Container[str]) -> list[str]:
    """Its other parameters, letter by letter."""
    pairs = query.split("&")
    return [each for each in pairs if each and unquote_plus(each.partition("=")[0]) not in names]


def check_answer_issuer(issuer: Issuer, iss: str | None) -> None:
    """RFC 9207, section 2.4, for errors as well as for codes; raises MixedUp.

    Compared as plain strings: no case, slash or port is forgiven. An issuer that was configured by
    hand without a name has nothing to compare with; its own redirect URI keeps it apart (RFC 9700,
    section 4.4.2.2).
    """
    if iss is None:
        if issuer.sends_issuer:
            raise MixedUp("The authorization server's answer does not say whose it is.")
    elif issuer.issuer and iss != issuer.issuer:
        raise MixedUp
