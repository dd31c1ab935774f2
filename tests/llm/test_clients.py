"""One client per provider and key."""

import httpx2
import pytest

from chatd.core.errors import TurnFailed
from chatd.llm.clients import ModelClients
from tests.llm.provider import model


@pytest.fixture
def made() -> ModelClients:
    return ModelClients(httpx2.AsyncClient(trust_env=False))


def test_a_provider_keeps_its_client_until_its_key_or_address_changes(made: ModelClients) -> None:
    first = made.client(model("https://a.test/v1"))
    assert made.client(model("https://a.test/v1")) is first
    assert made.client(model("https://a.test/v1", key="sk-other")) is not first
    assert made.client(model("https://b.test/v1")) is not first


def test_openai_needs_a_key_and_compatible_servers_do_not(made: ModelClients) -> None:
    for key in (None, ""):
        with pytest.raises(TurnFailed) as failed:
            made.client(model(None, provider="openai", key=key))
        assert failed.value.error["kind"] == "missing_key"
        assert failed.value.error["provider"] == "openai"
        keyless = made.client(model("https://a.test/v1", key=key))
        assert keyless.headers["authorization"] == "Bearer none"


def test_openai_has_an_address_of_its_own(
    made: ModelClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "https://elsewhere.test")
    client = made.client(model(None, provider="openai"))
    assert str(client.url) == "https://api.openai.com/v1/chat/completions"


@pytest.mark.parametrize("url", [None, "", "https://host:port/"])
def test_a_provider_without_a_usable_address_is_a_config_error(
    made: ModelClients, url: str | None
) -> None:
    with pytest.raises(TurnFailed) as failed:
        made.client(model(url))
    assert failed.value.error["kind"] == "config"


@pytest.mark.parametrize("key", ["sk-\nabc", "sk-é", "sk- abc"])
def test_a_key_that_fits_no_header_is_a_config_error_that_does_not_show_it(
    made: ModelClients, key: str
) -> None:
    with pytest.raises(TurnFailed) as failed:
        made.client(model("https://a.test/v1", key=key))
    assert failed.value.error["kind"] == "config"
    assert key not in str(failed.value.error)


def test_identity_of_the_environment_is_not_sent(
    made: ModelClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-the-machine")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-of-the-machine")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Gateway: of-the-machine")
    client = made.client(model("https://a.test/v1"))
    assert "of-the-machine" not in str(client.headers.raw)


@pytest.mark.parametrize(
    ("base", "asked"),
    [
        ("https://a.test", "https://a.test/chat/completions"),
        ("https://a.test/v1/", "https://a.test/v1/chat/completions"),
        ("https://a.test/v1?api-version=3", "https://a.test/v1/chat/completions?api-version=3"),
    ],
)
def test_the_path_goes_below_the_address(made: ModelClients, base: str, asked: str) -> None:
    assert str(made.client(model(base)).url) == asked
