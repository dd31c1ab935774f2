"""The userinfo endpoint of OpenID Connect: claims that an ID token leaves out."""

from collections.abc import Mapping
from typing import Any

import httpx2
from pydantic import SecretStr

from chatd.oauth.endpoints import WITHIN_S, get
from chatd.oauth.errors import BadIdentity, Unreachable


async def read_userinfo(
    http: httpx2.AsyncClient,
    url: str,
    access_token: SecretStr,
    *,
    subject: str,
    within_s: float = WITHIN_S,
) -> Mapping[str, Any]:
    """Of the user with this subject (OIDC Core, section 5.3). Raises BadIdentity for another's
    claims, and Unreachable."""
    headers = {"authorization": f"Bearer {access_token.get_secret_value()}"}
    answer = await get(http, url, headers=headers, within_s=within_s)
    claims = answer.members()
    if answer.status != 200 or claims is None:
        raise Unreachable(f"HTTP {answer.status} in place of claims")
    if claims.get("sub") != subject:
        raise BadIdentity("its claims are of another user")
    return claims
