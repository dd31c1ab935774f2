"""An endpoint of an authorization server: asked once, its answer capped in time and size."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import httpx2
import orjson

from chatd.core.errors import NotDialled
from chatd.oauth.bodies import MAX_BYTES, capped_body
from chatd.oauth.errors import Unreachable

WITHIN_S = 10.0
"""For all of one request, from resolving the host to the last byte of the answer."""

_HEADERS = {"accept": "application/json", "accept-encoding": "identity"}
"""GitHub answers in form encoding unless it is asked for JSON."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an endpoint said with a status of neither 3xx, 429 nor 5xx."""

    status: int
    body: bytes = field(repr=False)

    def members(self) -> Mapping[str, Any] | None:
        """Of the JSON object, whatever the content type says it is; None when it is none."""
        try:
            value: object = orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return None
        return cast(Mapping[str, Any], value) if isinstance(value, dict) else None


async def post(
    http: httpx2.AsyncClient,
    url: str,
    form: Mapping[str, str],
    *,
    headers: Mapping[str, str],
    within_s: float = WITHIN_S,
) -> Answer:
    """Raises Unreachable; never follows a redirect, whatever the client was told."""
    return await _ask(http, "POST", url, form=form, headers=headers, within_s=within_s)


async def get(
    http: httpx2.AsyncClient,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    within_s: float = WITHIN_S,
) -> Answer:
    """Raises Unreachable; never follows a redirect, whatever the client was told."""
    return await _ask(http, "GET", url, form=None, headers=headers or {}, within_s=within_s)


async def _ask(
    http: httpx2.AsyncClient,
    method: str,
    url: str,
    *,
    form: Mapping[str, str] | None,
    headers: Mapping[str, str],
    within_s: float,
) -> Answer:
    try:
        async with (
            asyncio.timeout(within_s),
            http.stream(
                method,
                url,
                data=form,
                headers={**_HEADERS, **headers},
                auth=None,
                follow_redirects=False,
            ) as response,
        ):
            return Answer(_usable(response.status_code), await _body(response))
    except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError) as error:
        reason = _reason(error)
    # Raised out here: the transport's error knows its request, and that one our secrets.
    raise Unreachable(reason)


def _usable(status: int) -> int:
    if 300 <= status < 400:
        raise Unreachable(f"HTTP {status}, a redirect, which is not followed")
    if status == 429 or status >= 500:
        raise Unreachable(f"HTTP {status}")
    return status


async def _body(response: httpx2.Response) -> bytes:
    body = await capped_body(response)
    if body is None:
        raise Unreachable(f"its answer is larger than {MAX_BYTES} bytes")
    return body


def _reason(error: Exception) -> str:
    """In our own words: a parser's message may quote the answer."""
    match error:
        case NotDialled():
            return f"refused: {error}"
        case TimeoutError() | httpx2.TimeoutException():
            return "no answer in time"
        case httpx2.ConnectError():
            return "no connection"
        case httpx2.InvalidURL() | httpx2.UnsupportedProtocol():
            return "its URL cannot be used"
        case _:
            return "its answer was cut off, too large or not HTTP"
