"""What an operator sets, and what is said when it will not do."""

import base64
from typing import Any

import pytest

from chatd.settings import DatabaseSettings, Settings, SettingsError, load

KEY = base64.b64encode(bytes(range(32))).decode()
GOOD = {
    "CHATD_DATABASE_URL": "postgresql://u:very-secret@db/chatd",
    "CHATD_REDIS_URL": "redis://:very-secret@cache/0",
    "CHATD_ENCRYPTION_KEYS": f"new:{KEY}, old:{KEY}",
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    return monkeypatch.setenv


def test_the_first_key_comes_first(environment: Any) -> None:
    assert list(load(Settings).keys()) == ["new", "old"]
    assert load(Settings).keys()["old"] == bytes(range(32))


def test_lists_are_written_with_commas(environment: Any) -> None:
    environment("CHATD_MCP_ALLOWED_CIDRS", "127.0.0.0/8, ::1/128")
    environment("CHATD_CORS_ORIGINS", "https://a.example,http://localhost:3000")
    settings = load(Settings)
    assert [str(network) for network in settings.mcp_allowed_cidrs] == ["127.0.0.0/8", "::1/128"]
    assert settings.cors_origins == ("https://a.example", "http://localhost:3000")
    assert settings.model_allowed_cidrs == ()


def test_an_exporter_is_configured_the_standard_way(environment: Any) -> None:
    assert load(Settings).otel_endpoint is None
    environment("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
    assert load(Settings).otel_endpoint == "http://collector:4318"


def test_the_short_form_of_the_scheme_is_understood(environment: Any) -> None:
    environment("CHATD_DATABASE_URL", "postgres://u:p@db/chatd")
    url = load(DatabaseSettings).database_url.get_secret_value()
    assert url == "postgresql://u:p@db/chatd"


def test_cookies_are_for_https_however_that_is_written(environment: Any) -> None:
    environment("CHATD_ACCESS_URL", "HTTPS://chatd.example/")
    assert load(Settings).access_url == "https://chatd.example"


def test_without_an_issuer_there_is_no_login(environment: Any) -> None:
    environment("CHATD_OIDC_CLIENT_ID", "chatd")
    settings = load(Settings)
    assert (settings.login(), settings.login_client()) == (None, None)


def test_a_login_is_what_its_variables_say(environment: Any) -> None:
    environment("CHATD_OIDC_ISSUER", "https://id.example/realm/")
    environment("CHATD_OIDC_CLIENT_ID", "chatd")
    environment("CHATD_OIDC_SCOPES", "profile groups")
    environment("CHATD_OIDC_ADMIN_VALUES", "boss, root")
    environment("CHATD_SESSION_HOURS", "2")
    login = load(Settings).login()
    assert login is not None
    assert (login.issuer, login.client.auth_method) == ("https://id.example/realm/", "none")
    assert (login.scopes, login.session_s) == ("openid profile groups", 7200)
    assert login.rules.admin_values == {"boss", "root"}
    assert login.rules.group_names is None
    environment("CHATD_OIDC_CLIENT_SECRET", "very-secret")
    client = load(Settings).login_client()
    assert client is not None
    assert client.auth_method == "client_secret_basic"
    assert "very-secret" not in repr(load(Settings)) + repr(client)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("*", None),
        ("staff=Staff, a=b=Ops", {"staff": "Staff", "a=b": "Ops"}),
        ('{"cn=x,ou=y": "Ops"}', {"cn=x,ou=y": "Ops"}),
    ],
)
def test_claims_stand_for_groups(environment: Any, text: str, names: dict[str, str] | None) -> None:
    environment("CHATD_OIDC_ISSUER", "https://id.example")
    environment("CHATD_OIDC_CLIENT_ID", "chatd")
    environment("CHATD_OIDC_GROUPS", text)
    login = load(Settings).login()
    assert login is not None
    assert login.rules.group_names == names


def test_a_login_needs_a_client(environment: Any) -> None:
    environment("CHATD_OIDC_ISSUER", "https://id.example")
    with pytest.raises(SettingsError) as raised:
        load(Settings)
    assert raised.value.message == "CHATD_OIDC_CLIENT_ID: is needed where CHATD_OIDC_ISSUER is set."


def test_secrets_do_not_show(environment: Any) -> None:
    assert "very-secret" not in repr(load(Settings))
    assert KEY not in repr(load(Settings))


def test_every_missing_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in GOOD:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SettingsError) as raised:
        load(Settings)
    assert sorted(raised.value.message.splitlines()) == sorted(
        f"{name} is not set." for name in GOOD
    )


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("CHATD_DATABASE_URL", "mysql://u:very-secret@db", "expected postgresql://"),
        ("CHATD_REDIS_URL", "http://very-secret", "expected redis://"),
        ("CHATD_ENCRYPTION_KEYS", "very-secret", "each key is written id:base64"),
        ("CHATD_ENCRYPTION_KEYS", "a:c2hvcnQ=", "the key a has 5 bytes; it needs 32"),
        ("CHATD_ENCRYPTION_KEYS", f"a:{KEY},a:{KEY}", "the key id a is there twice"),
        ("CHATD_ENCRYPTION_KEYS", "a:not-base64!", "the key a is not base64"),
        ("CHATD_ENCRYPTION_KEYS", ",", "at least one key is needed"),
        ("CHATD_PORT", "65536", "less than or equal to 65535"),
        ("CHATD_MCP_ALLOWED_CIDRS", "10.0.0.1/8", "'10.0.0.1/8' is not a network"),
        ("CHATD_CORS_ORIGINS", "https://a.example/", "is not an origin"),
        ("CHATD_CORS_ORIGINS", "*", "is not an origin"),
        ("CHATD_ACCESS_URL", "chatd.example", "expected a URL such as"),
        ("CHATD_LOG_FORMAT", "xml", "'json' or 'console'"),
        ("CHATD_OIDC_ISSUER", "id.example", "expected the issuer's URL"),
        ("CHATD_OIDC_GROUPS", "staff", "expected claim=group"),
        ("CHATD_OIDC_GROUPS", '{"very-secret"', "is not JSON"),
        ("CHATD_SESSION_HOURS", "0", "greater than 0"),
    ],
)
def test_what_is_wrong_is_one_line_without_the_secret(
    environment: Any, name: str, value: str, said: str
) -> None:
    environment(name, value)
    with pytest.raises(SettingsError) as raised:
        load(Settings)
    (line,) = raised.value.message.splitlines()
    assert line.startswith(f"{name}: ")
    assert said in line
    assert "very-secret" not in line
