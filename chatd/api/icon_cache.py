"""Icons of MCP servers: read out of a data URL, or fetched for whoever may see them."""

import asyncio
import re
from base64 import b64decode
from collections import OrderedDict
from dataclasses import dataclass

import httpx2

from chatd import logs
from chatd.core.errors import BadGateway
from chatd.outbound import Outbound

MAX_DATA_BYTES = 64 * 1024
FETCH_SECONDS = 5.0
KEPT_SECONDS = 3600.0
FAILURE_KEPT_SECONDS = 60.0
MAX_KEPT = 128
SVG = "image/svg+xml"

DATA_TYPES = ("image/png", "image/jpeg", "image/gif", "image/webp", SVG)
MEDIA_TYPES = (*DATA_TYPES, "image/avif", "image/x-icon", "image/vnd.microsoft.icon")

_DATA_URL = re.compile(rf"data:({'|'.join(map(re.escape, DATA_TYPES))});base64,(.*)", re.DOTALL)

_log = logs.get(__name__)

_Key = tuple[str, str]
"""Of the icon and of its server."""


@dataclass(frozen=True, slots=True)
class Icon:
    data: bytes
    media_type: str


def read_data_url(url: str) -> Icon | None:
    """None for what is no image as base64."""
    match = _DATA_URL.fullmatch(url)
    if match is None:
        return None
    try:
        return Icon(b64decode(match[2], validate=True), match[1])
    except ValueError:
        return None


class Icons:
    """Fetched ones are kept for an hour, failures for a minute: who looks does not dial."""

    def __init__(self, outbound: Outbound) -> None:
        self._outbound = outbound
        self._kept: OrderedDict[_Key, tuple[float, Icon | None]] = OrderedDict()
        self._fetching: dict[_Key, asyncio.Task[Icon | None]] = {}

    async def get(self, url: str, server_url: str) -> Icon:
        """An icon may lie in a private network only if its server does. Raises `BadGateway`."""
        icon = read_data_url(url) or await self._kept_or_fetched((url, server_url))
        if icon is None:
            raise BadGateway("The icon cannot be fetched.")
        return icon

    async def aclose(self) -> None:
        for task in self._fetching.values():
            task.cancel()
        await asyncio.gather(*self._fetching.values(), return_exceptions=True)

    async def _kept_or_fetched(self, key: _Key) -> Icon | None:
        until, icon = self._kept.get(key, (0.0, None))
        if asyncio.get_running_loop().time() < until:
            return icon
        task = self._fetching.get(key)
        if task is None:
            task = self._fetching[key] = asyncio.create_task(self._fetch(key))
            task.add_done_callback(lambda _: self._fetching.pop(key, None))
        return await asyncio.shield(task)

    async def _fetch(self, key: _Key) -> Icon | None:
        """Whoever waits for it may leave, the others still get it."""
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                icon = await self._download(*key)
        except (TimeoutError, httpx2.HTTPError, httpx2.InvalidURL) as error:
            _log.info("an icon cannot be fetched", error=type(error).__name__)
            icon = None
        seconds = KEPT_SECONDS if icon is not None else FAILURE_KEPT_SECONDS
        self._kept[key] = (asyncio.get_running_loop().time() + seconds, icon)
        self._kept.move_to_end(key)
        if len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return icon

    async def _download(self, url: str, server_url: str) -> Icon | None:
        """Redirects are not followed; the client caps what it reads."""
        client = await self._outbound.discovery_client(server_url)
        async with client.stream("GET", url, headers={"accept": "image/*"}) as answer:
            media_type = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
            if answer.status_code != 200 or media_type not in MEDIA_TYPES:
                return None
            return Icon(await answer.aread(), media_type)
