"""Credentials of MCP servers that are a client of somebody: which go together, and which do not."""

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from chatd.store.db import Database
from tests.api.conftest import Person
from tests.api.test_server_mistakes import TICKETS, named

SERVICE: dict[str, Any] = {
    "auth_type": "client_credentials",
    "oauth2_client_id": "chatd",
    "oauth2_client_secret": "s3cret",
    "oauth2_token_url": "https://sso.example/token",
    "oauth2_scopes": "read",
}
BY_HAND: dict[str, Any] = {
    "auth_type": "oauth2",
    "oauth2_client_id": "chatd",
    "oauth2_auth_url": "https://sso.example/authorize",
    "oauth2_token_url": "https://sso.example/token",
}


def pem(key: Any) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


KEY = pem(ec.generate_private_key(ec.SECP256R1()))


async def add(admin: Person, **fields: Any) -> Any:
    answer = await admin.post("/mcp/servers", TICKETS | fields)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_a_server_without_users_has_a_client_of_its_own(admin: Person) -> None:
    made = await add(admin, **SERVICE)
    assert (made["auth_type"], made["auth_connected"]) == ("client_credentials", True)
    assert (made["has_oauth2_secret"], made["oauth2_auth_url"]) == (True, "")
    assert made["oauth2_auth_method"] == "client_secret_basic"


@pytest.mark.parametrize(
    ("fields", "method"),
    [
        ({}, "none"),
        ({"oauth2_client_secret": "s3cret"}, "client_secret_basic"),
        ({"oauth2_client_secret": KEY}, "private_key_jwt"),
        (
            {"oauth2_client_secret": "s3cret", "oauth2_auth_method": "client_secret_post"},
            "client_secret_post",
        ),
    ],
)
async def test_how_a_client_proves_itself_follows_from_its_secret(
    admin: Person, fields: dict[str, Any], method: str
) -> None:
    made = await add(admin, **BY_HAND | fields)
    assert made["oauth2_auth_method"] == method
    path = f"/mcp/servers/{made['id']}"
    kept = (await admin.patch(path, {"description": "x"})).json()
    assert kept["oauth2_auth_method"] == method
    public = (await admin.patch(path, {"oauth2_client_secret": ""})).json()
    assert (public["oauth2_auth_method"], public["has_oauth2_secret"]) == ("none", False)
    secret = (await admin.patch(path, {"oauth2_client_secret": "another-s3cret"})).json()
    assert secret["oauth2_auth_method"] == "client_secret_basic"


MISTAKES = {
    "no secret": (SERVICE | {"oauth2_client_secret": ""}, {"oauth2_client_secret"}),
    "no token URL": (SERVICE | {"oauth2_token_url": ""}, {"oauth2_token_url"}),
    "no client": (SERVICE | {"oauth2_client_id": ""}, {"oauth2_client_id"}),
    "a secret where a key belongs": (
        SERVICE | {"oauth2_auth_method": "private_key_jwt"},
        {"oauth2_client_secret"},
    ),
    "a key where a secret belongs": (
        SERVICE | {"oauth2_client_secret": KEY, "oauth2_auth_method": "client_secret_post"},
        {"oauth2_client_secret"},
    ),
    "a key that is too short": (
        SERVICE | {"oauth2_client_secret": pem(rsa.generate_private_key(65537, 1024))},
        {"oauth2_client_secret"},
    ),
    "a key that is none": (
        SERVICE | {"oauth2_client_secret": "-----BEGIN PRIVATE KEY-----\nx"},
        {"oauth2_client_secret"},
    ),
    "a secret of a public client": (
        BY_HAND | {"oauth2_client_secret": "s3cret", "oauth2_auth_method": "none"},
        {"oauth2_client_secret"},
    ),
    "a method without its secret": (
        BY_HAND | {"oauth2_auth_method": "client_secret_post"},
        {"oauth2_client_secret"},
    ),
    "a method that does not exist": (
        BY_HAND | {"oauth2_auth_method": "tls_client_auth"},
        {"oauth2_auth_method"},
    ),
}


@pytest.mark.parametrize(("fields", "wrong"), MISTAKES.values(), ids=MISTAKES.keys())
async def test_a_mistake_is_named(admin: Person, fields: Any, wrong: set[str]) -> None:
    answer = await admin.post("/mcp/servers", TICKETS | fields)
    assert answer.status_code == 400, answer.text
    assert {name.split(".")[0] for name in named(answer)} == wrong


async def test_another_auth_type_takes_no_client_along(admin: Person, db: Database) -> None:
    made = await add(admin, **BY_HAND, oauth2_client_secret="s3cret")
    path = f"/mcp/servers/{made['id']}"
    answer = await admin.patch(path, {"auth_type": "client_credentials"})
    assert named(answer) == {"oauth2_client_id", "oauth2_token_url", "oauth2_client_secret"}
    other = {"oauth2_client_secret": "other-s3cret"}
    changed = (await admin.patch(path, SERVICE | other)).json()
    assert (changed["oauth2_auth_url"], changed["has_oauth2_secret"]) == ("", True)
    plain = (await admin.patch(path, {"auth_type": "user_oidc", "oidc_audience": "api"})).json()
    assert (plain["oidc_audience"], plain["has_oauth2_secret"]) == ("api", False)
    gone = (await admin.patch(path, {"auth_type": "none"})).json()
    assert gone["oidc_audience"] == ""


async def test_an_audience_belongs_to_a_login(admin: Person) -> None:
    made = await add(admin, **SERVICE)
    answer = await admin.patch(f"/mcp/servers/{made['id']}", {"oidc_audience": "api"})
    assert (answer.status_code, named(answer)) == (400, {"oidc_audience"})
