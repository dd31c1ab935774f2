"""Taking a token back (RFC 7009): at best effort, and reported."""

from typing import Literal

import httpx2
from pydantic import SecretStr

from chatd.core.oauth import Client
from chatd.oauth.client_auth import prove, secrets_of
from chatd.oauth.endpoints import WITHIN_S, Answer, post
from chatd.oauth.errors import Refused, Unreachable

TokenHint = Literal["refresh_token", "access_token"]


async def revoke(
    http: httpx2.AsyncClient,
    endpoint: str,
    client: Client,
    token: SecretStr,
    hint: TokenHint,
    *,
    issuer: str = "",
    within_s: float = WITHIN_S,
) -> str:
    """ "" when the token is no longer valid, also if it never was; else why it may still be.

    `unsupported_token_type` (section 2.2.1) means: try the other token. `issuer` as in `tokens`.
    """
    if not endpoint:
        return "it has no revocation endpoint"
    secret = token.get_secret_value()
    form = {"token": secret, "token_type_hint": hint}
    try:
        proof = prove(client, issuer or endpoint)
        answer = await post(
            http, endpoint, {**form, **proof.form}, headers=proof.headers, within_s=within_s
        )
    except Unreachable as error:
        return error.reason
    except Refused as error:
        return error.error
    return _refusal(answer, [secret, *secrets_of(client, proof)])


def _refusal(answer: Answer, secrets: list[str]) -> str:
    """A success needs no body; an `error` is one whatever the status."""
    error = (answer.members() or {}).get("error")
    if isinstance(error, str) and error:
        return Refused.saying(error, secrets).error
    return "" if 200 <= answer.status < 300 else f"HTTP {answer.status} without an error code"
