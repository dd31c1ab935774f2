"""MCP servers through the front door: governed by administrators, seen by all."""

from typing import Any

import orjson
import pytest

from chatd.store.db import Database, load
from tests.api.conftest import BASE, Person, text
from tests.seed import make_group

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
OAUTH2_TEXTS = (
    "oauth2_client_id",
    "oauth2_auth_url",
    "oauth2_token_url",
    "oauth2_revocation_url",
    "oauth2_scopes",
)
OAUTH2: dict[str, Any] = {
    "auth_type": "oauth2",
    "oauth2_client_id": " chatd ",
    "oauth2_client_secret": "client-s3cret",
    "oauth2_auth_url": " https://sso.example/authorize?tenant=1 ",
    "oauth2_token_url": "http://127.0.0.1:8080/token/",
    "oauth2_revocation_url": "https://sso.example/revoke",
    "oauth2_scopes": " read  write ",
}
UNKNOWN = "00000000-0000-7000-8000-000000000000"


async def add(admin: Person, **fields: Any) -> Any:
    answer = await admin.post("/mcp/servers", TICKETS | fields)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def pin(db: Database, server_id: str, *names: str) -> None:
    """As if the server had been asked for its tools."""
    await db.fetch(
        """INSERT INTO tool_pins (server_id, tool_name, definition_hash)
        SELECT $1::text::uuid, name, '' FROM unnest($2::text[]) AS name""",
        server_id,
        names,
    )


async def policy_version(db: Database) -> int:
    row = await db.fetch_one("SELECT version FROM policy_state")
    assert row is not None
    return row["version"]


async def audited(db: Database) -> set[str]:
    """The secrets that the newest change set, as the audit log has it."""
    row = await db.fetch_one("SELECT after FROM audit_log ORDER BY id DESC LIMIT 1")
    assert row is not None
    return {name for name, value in load(row["after"]).items() if value == "[redacted]"}


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
    third = await add(admin, slug="third", **OAUTH2, signing_secret="signing-s3cret")
    assert (first["has_api_key"], first["api_key_header"]) == (True, "X-Key")
    assert second["has_custom_headers"] is True
    assert (third["has_oauth2_secret"], third["has_signing_secret"]) == (True, True)
    for path in ("", f"/{first['id']}", f"/{second['id']}", f"/{third['id']}"):
        assert "s3cret" not in (await admin.get(f"/mcp/servers{path}")).text
    rows = await db.fetch("SELECT a::text AS entry FROM audit_log a ORDER BY id")
    assert all("[redacted]" in row["entry"] and "s3cret" not in row["entry"] for row in rows)


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
        "The auth type api_key needs api_key_header and api_key_value.",
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


async def test_a_new_server_keeps_no_secret_of_another_auth_type(
    admin: Person, db: Database
) -> None:
    secrets = {"oauth2_client_secret": "client-s3cret", "signing_secret": "signing-s3cret"}
    made = await add(admin, **API_KEY | secrets)
    kept = {name: made[f"has_{name}"] for name in ("oauth2_secret", "signing_secret", "api_key")}
    assert kept == {"oauth2_secret": False, "signing_secret": True, "api_key": True}
    assert await audited(db) == {"signing_secret", "api_key_value"}


async def test_a_secret_that_is_taken_away_is_not_audited_as_set(
    admin: Person, db: Database
) -> None:
    made = await add(admin, signing_secret="signing-s3cret")
    assert await audited(db) == {"signing_secret"}
    answer = await admin.patch(f"/mcp/servers/{made['id']}", {"signing_secret": ""})
    assert answer.json()["has_signing_secret"] is False
    assert await audited(db) == set()


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
    admin: Person, member: Person, db: Database
) -> None:
    group = await make_group(db, "support", member.user.id)
    restricted = {"access": "groups", "group_ids": [str(group)], "tool_allow_list": ["none"]}
    shown = await add(admin, **OAUTH2, **restricted)
    await pin(db, shown["id"], "one")
    hidden = await add(admin, slug="hidden", enabled=False)
    (seen,) = (await member.get("/mcp/servers")).json()
    assert seen["slug"] == "tickets"
    for name in ("url", "transport", "api_key_header", *OAUTH2_TEXTS):
        assert seen[name] == "", name
    assert (seen["group_ids"], seen["unknown_tools"]) == ([], [])
    for name in ("tool_allow_list", "availability", "auth_type", "has_oauth2_secret", "access"):
        assert seen[name] == shown[name], name
    assert (await member.get(f"/mcp/servers/{shown['id']}")).json() == seen
    assert (await member.get(f"/mcp/servers/{hidden['id']}")).status_code == 404
    assert (await admin.get(f"/mcp/servers/{hidden['id']}")).status_code == 200


async def test_a_server_for_a_group_is_hidden_from_the_others(
    admin: Person, member: Person, model: str, db: Database
) -> None:
    made = await add(admin, access="groups")
    path = f"/mcp/servers/{made['id']}"
    asking = {"content": text("hi"), "mcp_server_ids": [made["id"]]}
    unknown = asking | {"mcp_server_ids": [UNKNOWN]}
    assert (await member.get("/mcp/servers")).json() == []
    assert (await member.get(path)).status_code == 404
    refused = await member.post("/chats", asking)
    assert refused.status_code == 400
    like = (await member.post("/chats", unknown)).json()
    same = refused.text.replace(made["id"], UNKNOWN).replace(
        refused.json()["request_id"], like["request_id"]
    )
    assert orjson.loads(same) == like
    group = await make_group(db, "support", member.user.id)
    changed = (await admin.patch(path, {"group_ids": [str(group)]})).json()
    assert (changed["group_ids"], changed["version"]) == ([str(group)], 2)
    assert [seen["id"] for seen in (await member.get("/mcp/servers")).json()] == [made["id"]]
    assert (await member.post("/chats", asking)).status_code == 201


async def test_the_deployment_says_who_may_use_new_servers(admin: Person, member: Person) -> None:
    path = "/chats/config/new-servers"
    assert (await admin.get(path)).json() == {"access": "everyone"}
    assert (await add(admin))["access"] == "everyone"
    assert (await admin.put(path, {"access": "groups"})).json() == {"access": "groups"}
    assert (await admin.get(path)).json() == {"access": "groups"}
    made = await add(admin, slug="other")
    assert (made["access"], made["group_ids"]) == ("groups", [])
    assert (await add(admin, slug="third", access="everyone"))["access"] == "everyone"
    changed = await admin.patch(f"/mcp/servers/{made['id']}", {"description": "still"})
    assert changed.json()["access"] == "groups"
    assert [seen["slug"] for seen in (await member.get("/mcp/servers")).json()] == [
        "third",
        "tickets",
    ]
    assert (await admin.put(path, {"access": "nobody"})).status_code == 400
    assert (await member.get(path)).status_code == 403
    assert (await member.put(path, {"access": "everyone"})).status_code == 403


@pytest.mark.parametrize("auth_type", ["oauth2", "user_oidc"])
async def test_who_has_not_connected_is_told(admin: Person, member: Person, auth_type: str) -> None:
    made = await add(admin, **OAUTH2 | {"auth_type": auth_type})
    assert made["auth_connected"] is False
    seen = (await member.get(f"/mcp/servers/{made['id']}")).json()
    assert (seen["auth_connected"], seen["auth_type"]) == (False, auth_type)


async def test_oauth_fields_are_kept_and_forgotten_with_the_auth_type(
    admin: Person, db: Database
) -> None:
    made = await add(admin, **OAUTH2)
    assert made["has_oauth2_secret"] is True
    assert {name: made[name] for name in OAUTH2_TEXTS} == {
        "oauth2_client_id": "chatd",
        "oauth2_auth_url": "https://sso.example/authorize?tenant=1",
        "oauth2_token_url": "http://127.0.0.1:8080/token/",
        "oauth2_revocation_url": "https://sso.example/revoke",
        "oauth2_scopes": "read write",
    }
    path = f"/mcp/servers/{made['id']}"
    kept = (await admin.patch(path, {"oauth2_scopes": "", "oauth2_client_secret": None})).json()
    assert (kept["oauth2_scopes"], kept["has_oauth2_secret"]) == ("", True)
    half = await admin.patch(path, {"oauth2_client_id": ""})
    assert half.json()["message"] == "The auth type oauth2 needs oauth2_client_id."
    public = (await admin.patch(path, {"oauth2_client_secret": ""})).json()
    assert public["has_oauth2_secret"] is False
    other = (await admin.patch(path, API_KEY | {"oauth2_client_id": ""})).json()
    assert {other[name] for name in OAUTH2_TEXTS} == {""}
    answer = await admin.patch(path, {"auth_type": "oauth2"})
    assert len(answer.json()["validations"]) == 3
    row = await db.fetch_one("SELECT oauth2_client_secret, oauth2_auth_url FROM mcp_server_configs")
    assert row is not None
    assert tuple(row.values()) == (None, "")


async def test_rules_of_governance_are_kept(admin: Person) -> None:
    rules: dict[str, Any] = {
        "required_auth": True,
        "tool_changes": "quarantine",
        "tool_settings": {"one": {"plan_mode": "allow"}, "two": {"require_approval": "always"}},
        "signing_secret": "s3cret",
    }
    made = await add(
        admin, **rules | {"tool_settings": {" one ": rules["tool_settings"]["one"], "three": {}}}
    )
    assert made["tool_settings"] == {"one": {"plan_mode": "allow"}}
    assert (made["required_auth"], made["tool_changes"]) == (True, "quarantine")
    assert made["has_signing_secret"] is True
    path = f"/mcp/servers/{made['id']}"
    changed = (await admin.patch(path, {"tool_settings": rules["tool_settings"]})).json()
    assert (changed["tool_settings"], changed["has_signing_secret"]) == (
        rules["tool_settings"],
        True,
    )
    assert (await admin.patch(path, {"signing_secret": " "})).json()["has_signing_secret"] is False


async def test_names_that_the_server_does_not_know_are_reported(
    admin: Person, db: Database
) -> None:
    made = await add(admin, tool_deny_list=["drop"], tool_settings={"five": {"plan_mode": "deny"}})
    assert made["unknown_tools"] == []
    await pin(db, made["id"], "one", "five", "six")
    path = f"/mcp/servers/{made['id']}"
    assert (await admin.get(path)).json()["unknown_tools"] == ["drop", "two"]
    changed = await admin.patch(path, {"tool_allow_list": ["one", "One"]})
    assert (changed.status_code, changed.json()["unknown_tools"]) == (200, ["One", "drop"])
    assert (await admin.get("/mcp/servers")).json() == [changed.json()]


async def test_an_etag_says_which_version_a_change_is_of(admin: Person, member: Person) -> None:
    answer = await admin.post("/mcp/servers", TICKETS)
    path = f"/mcp/servers/{answer.json()['id']}"
    assert answer.headers["etag"] == '"1"'
    for person in (admin, member):
        assert (await person.get(path)).headers["etag"] == '"1"'
    for tag, change, version in (
        ('"1"', {}, 2),
        ('"2"', {"version": 2}, 3),
        ("*", {"version": 3}, 4),
        (None, {"version": None}, 5),
    ):
        headers = {"If-Match": tag} if tag else {}
        body = change | {"description": f"of {version}"}
        answer = await admin.http.patch(BASE + path, json=body, headers=headers)
        assert (answer.status_code, answer.headers["etag"]) == (200, f'"{version}"')
    headers = {"If-Match": '"5"'}
    assert (await admin.http.delete(BASE + path, headers=headers)).status_code == 204


async def test_an_etag_that_a_proxy_made_weak_is_still_ours(admin: Person) -> None:
    path = f"{BASE}/mcp/servers/{(await add(admin))['id']}"
    weak = {"If-Match": 'W/"1"'}
    changed = await admin.http.patch(path, json={"enabled": False}, headers=weak)
    assert (changed.status_code, changed.headers["ETag"]) == (200, '"2"')
    assert (await admin.http.delete(path, headers=weak)).status_code == 409


async def test_lists_are_empty_and_never_null(member: Person) -> None:
    assert (await member.get("/mcp/servers")).json() == []
    assert (await member.get("/chats")).json() == []
    assert (await member.get("/chats/models")).json() == {"providers": []}
