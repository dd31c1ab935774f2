"""A browser: what a user does with it who connects a server, or signs in."""

import re
from collections.abc import Mapping
from html import unescape
from urllib.parse import urljoin

import httpx2

_FIELD = re.compile(r'<input[^>]*name="([^"]+)"[^>]*value="([^"]*)"')
_ACTION = re.compile(r'<form[^>]*action="([^"]+)"')


async def follow(
    connect_url: str, mounts: Mapping[str, httpx2.AsyncBaseTransport] | None = None
) -> httpx2.Response:
    """Without a session: consent, its form, that server, the callback; gives the last page."""
    async with httpx2.AsyncClient(
        trust_env=False, verify=False, timeout=60, mounts=mounts
    ) as browser:
        page = await browser.get(connect_url)
        page.raise_for_status()
        (action,) = _ACTION.findall(page.text)
        form = {name: unescape(value) for name, value in _FIELD.findall(page.text)}
        target = urljoin(str(page.url), unescape(action))
        origin = {"Origin": f"{page.url.scheme}://{page.url.netloc.decode()}"}
        return await _led(browser, await browser.post(target, data=form, headers=origin))


async def sign_in(browser: httpx2.AsyncClient, login: str, subject: str) -> httpx2.Response:
    """There, the provider's form, and back; gives the last page."""
    form = await _led(browser, await browser.get(login))
    form.raise_for_status()
    return await _led(browser, await browser.post(form.url, data={"sub": subject}))


async def _led(browser: httpx2.AsyncClient, step: httpx2.Response) -> httpx2.Response:
    """Where redirects lead to."""
    while step.has_redirect_location:
        step = await browser.get(urljoin(str(step.url), step.headers["location"]))
    return step
