"""How each provider is asked: one client per provider and key, all on one shared HTTP client."""

import asyncio
from hashlib import sha256
from typing import cast
from uuid import UUID

import httpx2
import openai
import orjson

from chatd.core.errors import TurnFailed, turn_error
from chatd.core.models import Model

OPENAI_URL = "https://api.openai.com/v1"
_CONNECT_SECONDS = 10.0
_WRITE_SECONDS = 60.0
_REFUSAL_SECONDS = 10.0
_NO_KEY = "none"
"""What a provider without a key is sent, since the client insists on one."""


class ModelClient:
    """A provider's chat completions, with the address, headers and errors of the OpenAI client.

    Not with its requests: to build and check one costs several times what sending it does, and
    that was a twentieth of a plain turn. Nothing is tried again here.
    """

    def __init__(self, http: httpx2.AsyncClient, base_url: str, key: str) -> None:
        client = openai.AsyncOpenAI(api_key=key, base_url=base_url, max_retries=0, http_client=http)
        self._http = http
        self.url = _below(client.base_url, "chat/completions")
        # Not all of its own: some come from this process's environment, for one provider at most.
        own = {
            "Accept": "text/event-stream",
            "Content-Type": "application/json",
            "User-Agent": client.user_agent,
            **client.platform_headers(),
            **client.auth_headers,
        }
        self.headers = httpx2.Headers({**http.headers, **httpx2.Headers(own)})

    async def post(self, content: bytes, silence_s: float) -> httpx2.Response:
        """The answer, its body not read yet; whoever asked closes it. `silence_s` bounds each
        wait for the provider.

        Raises openai.APIStatusError for any status but 2xx, httpx2.TransportError.
        """
        timeout = httpx2.Timeout(
            connect=_CONNECT_SECONDS, read=silence_s, write=_WRITE_SECONDS, pool=None
        )
        request = httpx2.Request(
            "POST",
            self.url,
            headers=self.headers,
            content=content,
            extensions={"timeout": timeout.as_dict()},
        )
        response = await self._http.send(request, stream=True)
        if not response.is_success:
            raise await _refusal(response, min(silence_s, _REFUSAL_SECONDS))
        return response


class ModelClients:
    """`http` is the outbound factory's model client; whoever made it closes it."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self._http = http
        self._clients: dict[UUID, tuple[tuple[str, bytes], ModelClient]] = {}

    def client(self, model: Model) -> ModelClient:
        """The provider's client; a changed address or key replaces it.

        Raises TurnFailed (missing_key, config).
        """
        key = model.api_key.get_secret_value() if model.api_key else ""
        if not key and model.provider == "openai":
            raise TurnFailed(
                turn_error("missing_key", "No API key is configured.", provider=model.provider)
            )
        if not key.isascii() or any(not "!" <= character <= "~" for character in key):
            raise _config(model, "The API key holds characters that cannot be sent.")
        base_url = model.base_url or (OPENAI_URL if model.provider == "openai" else "")
        made_for = (base_url, sha256(key.encode()).digest())
        known = self._clients.get(model.provider_id)
        if known is not None and known[0] == made_for:
            return known[1]
        client = self._make(model, base_url, key or _NO_KEY)
        self._clients[model.provider_id] = (made_for, client)
        return client

    def _make(self, model: Model, base_url: str, key: str) -> ModelClient:
        if not base_url:
            raise _config(model, "The provider has no base URL.")
        try:
            return ModelClient(self._http, base_url, key)
        except httpx2.InvalidURL:
            raise _config(model, "The provider's base URL is not valid.") from None


def _below(base: httpx2.URL, path: str) -> httpx2.URL:
    """Some providers want a query in every URL, as `?api-version=`."""
    folder, mark, query = base.raw_path.partition(b"?")
    return base.copy_with(raw_path=folder.rstrip(b"/") + b"/" + path.encode() + mark + query)


async def _refusal(response: httpx2.Response, within_s: float) -> openai.APIStatusError:
    """The client's own error, with `error` of the body if it is JSON and has one, as it does.

    A body that breaks off or never comes says nothing, and the status still does.
    """
    body: object = ""
    try:
        async with asyncio.timeout(within_s):
            content = await response.aread()
        body = response.text
        body = orjson.loads(content)
    except (httpx2.HTTPError, TimeoutError, orjson.JSONDecodeError):
        pass
    finally:
        await response.aclose()
    if isinstance(body, dict):
        body = cast(dict[str, object], body).get("error", cast(object, body))
    return openai.APIStatusError(
        f"Error code: {response.status_code}", response=response, body=body
    )


def _config(model: Model, message: str) -> TurnFailed:
    return TurnFailed(turn_error("config", message, provider=model.provider))
