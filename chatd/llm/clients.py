"""One OpenAI client per provider and key, all on one shared HTTP client."""

from hashlib import sha256
from uuid import UUID

import httpx2
from openai import AsyncOpenAI

from chatd.core.errors import TurnFailed, turn_error
from chatd.core.models import Model

OPENAI_URL = "https://api.openai.com/v1"
_NO_KEY = "none"
"""What a provider without a key is sent, since the client insists on one."""


class ModelClients:
    """`http` is the outbound factory's model client; whoever made it closes it."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self._http = http
        self._clients: dict[UUID, tuple[tuple[str, bytes], AsyncOpenAI]] = {}

    def client(self, model: Model) -> AsyncOpenAI:
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

    def _make(self, model: Model, base_url: str, key: str) -> AsyncOpenAI:
        if not base_url:
            raise _config(model, "The provider has no base URL.")
        try:
            client = AsyncOpenAI(
                api_key=key, base_url=base_url, max_retries=0, http_client=self._http
            )
        except httpx2.InvalidURL:
            raise _config(model, "The provider's base URL is not valid.") from None
        # Both come from this process's environment, and would go to every provider.
        client.organization = None
        client.project = None
        return client


def _config(model: Model, message: str) -> TurnFailed:
    return TurnFailed(turn_error("config", message, provider=model.provider))
