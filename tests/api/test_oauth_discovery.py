"""An administrator pastes a URL: the authorization server is found, and a client registered."""

from collections.abc import AsyncGenerator
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response

from chatd.store.db import Database, load
from tests.api.conftest import Person
from tests.api.issuer import METADATA, RESOURCE, Issuer, serving_issuer

SERVER: dict[str, Any] = {
    "display_name": "Tickets",
    "slug": "tickets",
    "transport": "streamable_http",
    "auth_type": "oauth2",
    "availability": "default_on",
    "enabled": True,
}
CALLBACK = "http://127.0.0.1:8000/api/experimental/mcp/servers/{}/oauth2/callback"


@pytest.fixture
async def issuer() -> AsyncGenerator[Issuer]:
    async with serving_issuer() as issuer:
        yield issuer


async def add(admin: Person, issuer: Issuer, **fields: Any) -> Any:
    answer = await admin.post("/mcp/servers", SERVER | {"url": issuer.mcp_url} | fields)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def clients(db: Database) -> list[str]:
    """Ids of clients that were replaced."""
    return [row["client_id"] for row in await db.fetch("SELECT client_id FROM oauth_clients")]


async def test_a_url_is_all_that_is_needed(admin: Person, issuer: Issuer, db: Database) -> None:
    made = await add(admin, issuer)
    (registered,) = issuer.provider.clients.values()
    assert made["oauth2_client_id"] == registered.client_id
    assert made["has_oauth2_secret"] is (registered.client_secret is not None)
    assert made["oauth2_client_source"] == "registered"
    assert (made["enabled"], made["oauth2_scopes"]) == (True, "read write")
    assert made["oauth2_issuer"] == f"{issuer.url}/"
    assert made["oauth2_resource"] == issuer.mcp_url
    assert made["oauth2_token_url"] == f"{issuer.url}/token"
    assert made["oauth2_revocation_url"] == f"{issuer.url}/revoke"
    assert str(registered.redirect_uris) == f"[AnyUrl('{CALLBACK.format(made['id'])}')]"
    assert (await admin.get(f"/mcp/servers/{made['id']}")).json() == made
    (line,) = await db.fetch("SELECT action, after FROM audit_log")
    assert (line["action"], load(line["after"])["slug"]) == ("create", "tickets")
    assert str(registered.client_secret) not in line["after"]


async def test_an_administrators_scopes_win(admin: Person, issuer: Issuer) -> None:
    assert (await add(admin, issuer, oauth2_scopes="read"))["oauth2_scopes"] == "read"


async def test_where_nothing_is_found_every_url_is_named_and_nothing_is_added(
    admin: Person, issuer: Issuer, db: Database
) -> None:
    for path in (METADATA, RESOURCE, "/register"):
        issuer.replies[path] = lambda: Response("never to be shown", status_code=404)
    answer = await admin.post("/mcp/servers", SERVER | {"url": issuer.mcp_url})
    told = answer.json()
    assert answer.status_code == 400
    for name in ("oauth2_client_id", "oauth2_auth_url", "oauth2_token_url"):
        assert name in told["message"]
    tried = {attempt["url"] for attempt in told["attempts"]}
    general = "/.well-known/oauth-protected-resource"
    for path in ("/mcp", RESOURCE, general, METADATA, "/register"):
        assert f"{issuer.url}{path}" in tried
        assert f"{issuer.url}{path}" in told["detail"]
    assert "never to be shown" not in answer.text
    assert (await admin.get("/mcp/servers")).json() == []
    assert await db.fetch("SELECT 1 FROM audit_log") == []


async def test_a_server_that_takes_no_clients_names_the_fields_to_give(
    admin: Person, issuer: Issuer
) -> None:
    issuer.replies[METADATA] = issuer.metadata(registration_endpoint=None)
    answer = await admin.post("/mcp/servers", SERVER | {"url": issuer.mcp_url})
    assert answer.status_code == 400
    told = answer.json()
    assert f"oauth2_auth_url is {issuer.url}/authorize" in told["next_step"]
    assert CALLBACK.format(told["server_id"]) in told["next_step"]
    assert (await admin.get("/mcp/servers")).json() == []
    found = told["discovered"]
    assert found["oauth2_token_url"] == f"{issuer.url}/token"
    by_hand = found | {"id": told["server_id"], "oauth2_client_id": "by-hand"}
    assert (await add(admin, issuer, **by_hand))["id"] == told["server_id"]
    again = await admin.post("/mcp/servers", SERVER | by_hand | {"url": "http://x", "slug": "b"})
    assert again.status_code == 409


@pytest.mark.parametrize("methods", [None, ["plain"]])
async def test_a_server_without_s256_is_refused(
    admin: Person, issuer: Issuer, methods: list[str] | None
) -> None:
    issuer.replies[METADATA] = issuer.metadata(code_challenge_methods_supported=methods)
    answer = await admin.post("/mcp/servers", SERVER | {"url": issuer.mcp_url})
    assert (answer.status_code, "PKCE" in answer.json()["next_step"]) == (400, True)


async def test_metadata_of_another_issuer_is_refused(admin: Person, issuer: Issuer) -> None:
    issuer.replies[METADATA] = issuer.metadata(issuer="https://elsewhere.example")
    answer = await admin.post("/mcp/servers", SERVER | {"url": issuer.mcp_url})
    assert answer.status_code == 400
    assert issuer.provider.clients == {}


async def test_metadata_that_points_inside_is_refused(admin: Person, issuer: Issuer) -> None:
    inside = {"resource": issuer.mcp_url, "authorization_servers": ["http://169.254.169.254/"]}
    issuer.replies[RESOURCE] = lambda: JSONResponse(inside)
    answer = await admin.post("/mcp/servers", SERVER | {"url": issuer.mcp_url})
    assert answer.status_code == 400
    assert "link-local" in answer.text


async def test_a_host_that_does_not_exist_is_said_so(admin: Person) -> None:
    answer = await admin.post("/mcp/servers", SERVER | {"url": "https://nowhere.invalid/mcp"})
    assert answer.status_code == 400
    assert answer.json()["attempts"][0]["url"] == "https://nowhere.invalid/mcp"


async def test_a_taken_slug_asks_nobody(admin: Person, issuer: Issuer) -> None:
    await add(admin, issuer)
    issuer.asked.clear()
    answer = await admin.post("/mcp/servers", SERVER | {"url": issuer.mcp_url})
    assert (answer.status_code, issuer.asked) == (409, [])


async def test_discovering_again_keeps_the_client_and_reads_the_endpoints(
    admin: Person, issuer: Issuer, db: Database
) -> None:
    made = await add(admin, issuer)
    path = f"/mcp/servers/{made['id']}/oauth2/discover"
    issuer.replies[METADATA] = issuer.metadata(token_endpoint=f"{issuer.url}/v2/token")
    again = (await admin.post(path, None)).json()
    assert again["oauth2_client_id"] == made["oauth2_client_id"]
    assert again["oauth2_token_url"] == f"{issuer.url}/v2/token"
    assert (again["version"], await clients(db)) == (made["version"] + 1, [])
    row = await db.fetch_one("SELECT action, before FROM audit_log ORDER BY id DESC LIMIT 1")
    assert row is not None
    assert row["action"] == "discover"
    assert load(row["before"])["oauth2_token_url"] == made["oauth2_token_url"]


async def test_another_issuer_gets_another_client_and_the_old_one_is_kept(
    admin: Person, issuer: Issuer, db: Database
) -> None:
    made = await add(admin, issuer)
    async with serving_issuer() as other:
        moved = {"resource": issuer.mcp_url, "authorization_servers": [f"{other.url}/"]}
        issuer.replies[RESOURCE] = lambda: JSONResponse(moved)
        answer = await admin.post(f"/mcp/servers/{made['id']}/oauth2/discover", {})
        assert answer.status_code == 200, answer.text
        assert answer.json()["oauth2_issuer"] == f"{other.url}/"
        assert list(other.provider.clients) == [answer.json()["oauth2_client_id"]]
    assert await clients(db) == [made["oauth2_client_id"]]


async def test_a_new_client_is_registered_on_demand(
    admin: Person, issuer: Issuer, db: Database
) -> None:
    made = await add(admin, issuer)
    path = f"/mcp/servers/{made['id']}/oauth2/discover"
    again = (await admin.post(path, {"register_client": True})).json()
    assert again["oauth2_client_id"] != made["oauth2_client_id"]
    assert await clients(db) == [made["oauth2_client_id"]]


async def test_a_client_that_was_set_by_hand_is_not_replaced(admin: Person, issuer: Issuer) -> None:
    by_hand = {
        "oauth2_client_id": "by-hand",
        "oauth2_auth_url": f"{issuer.url}/authorize",
        "oauth2_token_url": f"{issuer.url}/token",
    }
    made = await add(admin, issuer, **by_hand)
    path = f"/mcp/servers/{made['id']}/oauth2/discover"
    again = (await admin.post(path, {})).json()
    assert (again["oauth2_client_id"], again["oauth2_issuer"]) == ("by-hand", f"{issuer.url}/")
    assert (await admin.post(path, {"register_client": True})).status_code == 400
    async with serving_issuer() as other:
        moved = {"resource": issuer.mcp_url, "authorization_servers": [f"{other.url}/"]}
        issuer.replies[RESOURCE] = lambda: JSONResponse(moved)
        answer = await admin.post(path, {})
        assert (answer.status_code, other.url in answer.json()["detail"]) == (400, True)
        assert other.provider.clients == {}


async def test_only_administrators_discover(admin: Person, member: Person, issuer: Issuer) -> None:
    made = await add(admin, issuer)
    path = f"/mcp/servers/{made['id']}/oauth2/discover"
    assert (await member.post(path, {})).status_code == 403


async def test_another_url_is_discovered_anew(admin: Person, issuer: Issuer) -> None:
    made = await add(admin, issuer)
    async with serving_issuer() as other:
        changed = await admin.patch(f"/mcp/servers/{made['id']}", {"url": other.mcp_url})
        assert changed.status_code == 200, changed.text
        assert changed.json()["oauth2_issuer"] == f"{other.url}/"
        assert changed.json()["oauth2_resource"] == other.mcp_url
    failed = await admin.patch(f"/mcp/servers/{made['id']}", {"url": "http://127.0.0.1:9/mcp"})
    assert failed.status_code == 400
    assert (await admin.get(f"/mcp/servers/{made['id']}")).json() == changed.json()


async def test_a_server_becomes_one_of_oauth_by_its_type_alone(
    admin: Person, issuer: Issuer
) -> None:
    made = await add(admin, issuer, auth_type="none")
    assert made["oauth2_client_id"] == ""
    changed = (await admin.patch(f"/mcp/servers/{made['id']}", {"auth_type": "oauth2"})).json()
    assert changed["oauth2_client_id"] in issuer.provider.clients


HALVES = (
    {"oauth2_client_id": "x"},
    {"oauth2_client_secret": "s3cret"},
    {"oauth2_auth_url": "https://sso.example/a", "oauth2_token_url": "https://sso.example/t"},
    {"oauth2_revocation_url": "https://sso.example/r"},
)


async def test_half_a_configuration_is_refused_and_asks_nobody(
    admin: Person, issuer: Issuer
) -> None:
    for half in HALVES:
        answer = await admin.post("/mcp/servers", SERVER | {"url": issuer.mcp_url} | half)
        assert (answer.status_code, issuer.asked) == (400, [])
        assert "needs" in answer.json()["message"]


async def test_discovery_has_a_limit(admin: Person, issuer: Issuer) -> None:
    made = await add(admin, issuer)
    path = f"/mcp/servers/{made['id']}/oauth2/discover"
    codes = [(await admin.post(path, {})).status_code for _ in range(21)]
    assert 429 in codes


async def test_there_is_no_metadata_document_that_nobody_could_read(
    admin: Person, issuer: Issuer
) -> None:
    made = await add(admin, issuer)
    path = f"/mcp/servers/{made['id']}/oauth2/client-metadata.json"
    assert (await admin.get(path)).status_code == 404
