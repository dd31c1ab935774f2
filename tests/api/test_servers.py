"""MCP servers through the front door: governed by administrators, seen by all."""

from typing import Any

import pytest

from chatd.store.db import Database, load
from tests.api.conftest import Person

TICKETS: dict[str, Any] = {
    "display_name": " Tickets ",
    "slug": "tickets",
    "transport": "streamable_http",
    "url": "https://tickets.example/mcp?tenant=1",
    "auth_type": "none",
    "availability": "default_on",
    "enabled": True,
    "tool_allow_list": [" one ", "", "two", "one"],
}
API_KEY: dict[str, Any] = {
    "auth_type": "api_key",
    "api_key_header": " X-Key ",
    "api_key_value": " very-s3cret ",
}
HEADERS: dict[str, Any] = {
    "auth_type": "custom_headers",
    "custom_headers": {"X-One": " first-s3cret ", "X-Two": "second-s3cret"},
}


async def add(admin: Person, **fields: Any) -> Any:
    answer = await admin.post("/mcp/servers", TICKETS | fields)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def policy_version(db: Database) -> int:
    row = await db.fetch_one("SELECT version FROM policy_state")
    assert row is not None
    return row["version"]


async def test_a_server_is_added_with_everything_trimmed(admin: Person) -> None:
    made = await add(admin)
    assert made["display_name"] == "Tickets"
    assert made["tool_allow_list"] == ["one", "two"]
    assert made["tool_deny_list"] == []
    assert made["created_by"] == made["updated_by"] == str(admin.user.id)
    assert (made["auth_connected"], made["version"], made["allow_in_plan_mode"]) == (True, 1, False)
    assert (await admin.get(f"/mcp/servers/{made['id']}")).json() == made
    assert (await admin.get("/mcp/servers")).json() == [made]


async def test_secrets_are_never_answered(admin: Person, db: Database) -> None:
    first = await add(admin, **API_KEY)
    second = await add(admin, slug="other", **HEADERS)
    assert (first["has_api_key"], first["api_key_header"]) == (True, "X-Key")
    assert second["has_custom_headers"] is True
    for path in ("", f"/{first['id']}", f"/{second['id']}"):
        assert "s3cret" not in (await admin.get(f"/mcp/servers{path}")).text
    rows = await db.fetch("SELECT a::text AS entry FROM audit_log a ORDER BY id")
    assert all("[redacted]" in row["entry"] and "s3cret" not in row["entry"] for row in rows)


BAD_SERVERS: list[tuple[dict[str, Any], str]] = [
    ({"auth_type": "oauth2"}, "The auth type oauth2 is not available yet."),
    ({"auth_type": "user_oidc"}, "The auth type user_oidc is not available yet."),
    ({"auth_type": "api_key"}, "The auth type api_key needs api_key_header."),
    (API_KEY | {"api_key_value": " "}, "The auth type api_key needs api_key_value."),
    (API_KEY | {"api_key_header": "X Key"}, "Invalid header name."),
    (API_KEY | {"api_key_header": "Host"}, "The header Host cannot be configured."),
    (API_KEY | {"api_key_value": "a\r\nX-Evil: 1"}, "A secret must be printable"),
    ({"auth_type": "custom_headers"}, "The auth type custom_headers needs custom_headers."),
    (HEADERS | {"custom_headers": {}}, "The auth type custom_headers needs custom_headers."),
    (HEADERS | {"custom_headers": {"A": "1", "a": "2"}}, "A header is there twice."),
    (HEADERS | {"custom_headers": {"A": " "}}, "A header needs a value."),
    ({"slug": "not safe"}, "Invalid slug"),
    ({"slug": ""}, "Invalid slug"),
    ({"slug": "_a"}, "Invalid slug"),
    ({"url": "tickets.example"}, "A URL must begin"),
    ({"url": "https://u:p@tickets.example"}, "A URL must begin"),
    ({"icon_url": "javascript:alert(1)"}, "An icon is a path"),
    ({"transport": "stdio"}, "The request has invalid values."),
    ({"availability": "always"}, "The request has invalid values."),
    ({"display_name": ""}, "The request has invalid values."),
    ({"enabled": 1}, "The request has invalid values."),
    ({"tool_timeout_seconds": 0}, "The request has invalid values."),
    ({"tool_timeout_seconds": 2**40}, "The request has invalid values."),
    ({"tool_allow_list": "one"}, "The request has invalid values."),
    ({"enabeld": True}, "The request has invalid values."),
]


@pytest.mark.parametrize(("fields", "message"), BAD_SERVERS)
async def test_a_bad_server_is_refused(
    admin: Person, db: Database, fields: dict[str, Any], message: str
) -> None:
    answer = await admin.post("/mcp/servers", TICKETS | fields)
    assert answer.status_code == 400, answer.text
    assert answer.json()["message"].startswith(message)
    assert await db.fetch("SELECT 1 FROM mcp_server_configs") == []
    assert await policy_version(db) == 1


async def test_a_slug_is_given_once(admin: Person) -> None:
    made = await add(admin)
    answer = await admin.post("/mcp/servers", TICKETS)
    assert (answer.status_code, answer.json()["message"]) == (
        409,
        "MCP server config already exists.",
    )
    await add(admin, slug="other")
    answer = await admin.patch(f"/mcp/servers/{made['id']}", {"slug": "other"})
    assert (answer.status_code, answer.json()["message"]) == (
        409,
        "MCP server config slug already exists.",
    )


async def test_a_change_keeps_what_it_does_not_name(admin: Person, db: Database) -> None:
    made = await add(admin, **API_KEY)
    version = await policy_version(db)
    path = f"/mcp/servers/{made['id']}"
    answer = await admin.patch(
        path, {"allow_in_plan_mode": True, "tool_allow_list": [], "api_key_value": None}
    )
    changed = answer.json()
    assert answer.status_code == 200
    assert changed["allow_in_plan_mode"] is True
    assert changed["tool_allow_list"] == []
    assert (changed["has_api_key"], changed["api_key_header"]) == (True, "X-Key")
    assert (changed["enabled"], changed["url"]) == (True, made["url"])
    assert changed["version"] == 2
    assert await policy_version(db) == version + 1
    row = (await db.fetch("SELECT before, after FROM audit_log ORDER BY id"))[1]
    assert load(row["before"]) == {"allow_in_plan_mode": False, "tool_allow_list": ["one", "two"]}
    assert load(row["after"]) == {"allow_in_plan_mode": True, "tool_allow_list": []}


async def test_a_change_is_checked_as_a_whole(admin: Person) -> None:
    made = await add(admin)
    path = f"/mcp/servers/{made['id']}"
    answer = await admin.patch(path, {"auth_type": "api_key"})
    assert (answer.status_code, answer.json()["message"]) == (
        400,
        "The auth type api_key needs api_key_header.",
    )
    assert (await admin.patch(path, API_KEY)).json()["has_api_key"] is True
    answer = await admin.patch(path, {"api_key_value": ""})
    assert answer.json()["message"] == "The auth type api_key needs api_key_value."


async def test_another_auth_type_wipes_the_old_secrets(admin: Person, db: Database) -> None:
    made = await add(admin, **API_KEY)
    path = f"/mcp/servers/{made['id']}"
    changed = (await admin.patch(path, {"auth_type": "none"})).json()
    assert (changed["has_api_key"], changed["api_key_header"]) == (False, "")
    answer = await admin.patch(path, {"auth_type": "api_key"})
    assert answer.status_code == 400
    row = await db.fetch_one("SELECT api_key_value, api_key_value_key_id FROM mcp_server_configs")
    assert row is not None
    assert set(row.values()) == {None}


async def test_a_refused_change_changes_nothing(admin: Person, db: Database) -> None:
    made = await add(admin)
    version = await policy_version(db)
    answer = await admin.patch(f"/mcp/servers/{made['id']}", {"enabled": False, "url": "x"})
    assert answer.status_code == 400
    assert (await admin.get(f"/mcp/servers/{made['id']}")).json() == made
    assert await policy_version(db) == version


async def test_a_deleted_server_is_gone(admin: Person, db: Database) -> None:
    made = await add(admin)
    path = f"/mcp/servers/{made['id']}"
    assert (await admin.delete(path)).status_code == 204
    assert (await admin.get(path)).status_code == 404
    assert (await admin.delete(path)).status_code == 404
    assert (await admin.patch(path, {"enabled": True})).status_code == 404
    actions = [row["action"] for row in await db.fetch("SELECT action FROM audit_log ORDER BY id")]
    assert actions == ["create", "delete"]


async def test_members_see_enabled_servers_and_not_where_they_are(
    admin: Person, member: Person
) -> None:
    shown = await add(admin, **API_KEY)
    hidden = await add(admin, slug="hidden", enabled=False)
    (seen,) = (await member.get("/mcp/servers")).json()
    assert seen["slug"] == "tickets"
    for name in ("url", "transport", "api_key_header", "oauth2_client_id"):
        assert seen[name] == "", name
    for name in ("tool_allow_list", "availability", "auth_type", "has_api_key"):
        assert seen[name] == shown[name], name
    assert (await member.get(f"/mcp/servers/{shown['id']}")).json() == seen
    assert (await member.get(f"/mcp/servers/{hidden['id']}")).status_code == 404
    assert (await admin.get(f"/mcp/servers/{hidden['id']}")).status_code == 200


async def test_lists_are_empty_and_never_null(member: Person) -> None:
    assert (await member.get("/mcp/servers")).json() == []
    assert (await member.get("/chats")).json() == []
    assert (await member.get("/chats/models")).json() == {"providers": []}
