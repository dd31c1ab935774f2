"""What administrators get wrong about MCP servers: refused by field, and nothing is changed."""

from base64 import b64encode
from typing import Any
from uuid import uuid4

import pytest

from chatd.store.db import Database
from tests.api.conftest import BASE, Person

TICKETS: dict[str, Any] = {
    "display_name": "Tickets",
    "slug": "tickets",
    "transport": "streamable_http",
    "url": "https://tickets.example/mcp",
    "auth_type": "none",
    "availability": "default_on",
}
API_KEY = {"auth_type": "api_key", "api_key_header": "X-Key", "api_key_value": "s3cret"}
OAUTH2 = {
    "auth_type": "oauth2",
    "oauth2_client_id": "chatd",
    "oauth2_auth_url": "https://sso.example/authorize",
    "oauth2_token_url": "https://sso.example/token",
}
NOBODY = "00000000-0000-7000-8000-000000000000"


def headers(**values: Any) -> dict[str, Any]:
    return {"auth_type": "custom_headers", "custom_headers": values}


def setting(**values: Any) -> dict[str, Any]:
    return {"tool_settings": {"close": values}}


def image(size: int, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{b64encode(bytes(size)).decode()}"


Mistake = tuple[dict[str, Any], set[str]]

MISTAKES: dict[str, Mistake] = {
    "a URL without a scheme": ({"url": "tickets.example/mcp"}, {"url"}),
    "a URL that is none of the web": ({"url": "ftp://tickets.example"}, {"url"}),
    "a URL with a password": ({"url": "https://u:s3cret@tickets.example"}, {"url"}),
    "a URL with a fragment": ({"url": "https://tickets.example/mcp#top"}, {"url"}),
    "a URL with a port that is none": ({"url": "https://tickets.example:99999"}, {"url"}),
    "a URL with a space": ({"url": "https://tickets.example/my mcp"}, {"url"}),
    "a URL without a host": ({"url": "https:///mcp"}, {"url"}),
    "a URL that is too long": ({"url": "https://t.example/" + "x" * 2048}, {"url"}),
    "an empty URL": ({"url": " "}, {"url"}),
    "an unknown transport": ({"transport": "stdio"}, {"transport"}),
    "an unknown auth type": ({"auth_type": "basic"}, {"auth_type"}),
    "an unknown availability": ({"availability": "always"}, {"availability"}),
    "an unknown approval": ({"require_approval": "sometimes"}, {"require_approval"}),
    "an unknown access": ({"access": "nobody"}, {"access"}),
    "an unknown way with changed tools": ({"tool_changes": "ignore"}, {"tool_changes"}),
    "a slug with a space": ({"slug": "my tickets"}, {"slug"}),
    "a slug with two underscores": ({"slug": "my__tickets"}, {"slug"}),
    "a slug that ends with an underscore": ({"slug": "tickets_"}, {"slug"}),
    "a slug that begins with one": ({"slug": "_tickets"}, {"slug"}),
    "a slug that is too long": ({"slug": "x" * 65}, {"slug"}),
    "an empty slug": ({"slug": ""}, {"slug"}),
    "an empty name": ({"display_name": "  "}, {"display_name"}),
    "a name that is too long": ({"display_name": "x" * 201}, {"display_name"}),
    "a description that is too long": ({"description": "x" * 2001}, {"description"}),
    "a number for a flag": ({"enabled": 1}, {"enabled"}),
    "a word for a flag": ({"required_auth": "yes"}, {"required_auth"}),
    "a mistyped field": ({"enabeld": True}, {"enabeld"}),
    "an API key without its header": (API_KEY | {"api_key_header": ""}, {"api_key_header"}),
    "an API key that is blank": (API_KEY | {"api_key_value": " "}, {"api_key_value"}),
    "half an API key": (
        {"auth_type": "api_key", "api_key_value": ""},
        {"api_key_header", "api_key_value"},
    ),
    "a header's name with a space": (API_KEY | {"api_key_header": "X Key"}, {"api_key_header"}),
    "a header's name with a newline": (
        API_KEY | {"api_key_header": "X-Key\r\nX-Evil"},
        {"api_key_header"},
    ),
    "a header that is the transport's": (API_KEY | {"api_key_header": "Host"}, {"api_key_header"}),
    "a secret with a newline": (
        API_KEY | {"api_key_value": "s3cret\r\nX-Evil: 1"},
        {"api_key_value"},
    ),
    "a secret with a NUL": (API_KEY | {"api_key_value": "s3cret\0"}, {"api_key_value"}),
    "a secret that is too long": (API_KEY | {"api_key_value": "s3cret" * 2000}, {"api_key_value"}),
    "no custom headers": (headers(), {"custom_headers"}),
    "a custom header twice": (headers(A="1", a="2"), {"custom_headers"}),
    "a custom header without a value": (headers(A=" "), {"custom_headers"}),
    "a custom header with a newline": (headers(A="1\n2"), {"custom_headers.A"}),
    "a custom header with a NUL": (headers(A="1\0"), {"custom_headers.A"}),
    "a custom header that is the transport's": (
        headers(**{"Content-Type": "text/plain"}),
        {"custom_headers"},
    ),
    "a custom header that is no text": (headers(A=1), {"custom_headers.A"}),
    "custom headers as a list": (headers() | {"custom_headers": ["A: 1"]}, {"custom_headers"}),
    "custom headers of a megabyte": (headers(A="x" * 2**20), {"custom_headers.A"}),
    "custom headers without end": (
        headers(**{f"X-{n}": "1" for n in range(51)}),
        {"custom_headers"},
    ),
    "OAuth without a word on where": (
        {"auth_type": "oauth2"},
        {"oauth2_client_id", "oauth2_auth_url", "oauth2_token_url"},
    ),
    "half an OAuth config": (OAUTH2 | {"oauth2_token_url": ""}, {"oauth2_token_url"}),
    "OAuth over http": (
        OAUTH2 | {"oauth2_auth_url": "http://sso.example/authorize"},
        {"oauth2_auth_url"},
    ),
    "an OAuth URL that is none": (OAUTH2 | {"oauth2_token_url": "/token"}, {"oauth2_token_url"}),
    "revoking over http": (
        OAUTH2 | {"oauth2_revocation_url": "http://sso.example/revoke"},
        {"oauth2_revocation_url"},
    ),
    "scopes in quotes": (OAUTH2 | {"oauth2_scopes": '"read" "write"'}, {"oauth2_scopes"}),
    "a client ID with a newline": (OAUTH2 | {"oauth2_client_id": "a\nb"}, {"oauth2_client_id"}),
    "a client secret that no header can hold": (
        OAUTH2 | {"oauth2_client_secret": "gehéim"},
        {"oauth2_client_secret"},
    ),
    "a signing secret with a NUL": ({"signing_secret": "s3cret\0"}, {"signing_secret"}),
    "a tool that is allowed and denied": (
        {"tool_allow_list": ["close", "open"], "tool_deny_list": ["close "]},
        {"tool_allow_list", "tool_deny_list"},
    ),
    "a tool where a list should be": ({"tool_allow_list": "close"}, {"tool_allow_list"}),
    "a number for a tool": ({"tool_deny_list": ["close", 1]}, {"tool_deny_list.1"}),
    "tools without end": (
        {"tool_deny_list": [f"t{n}" for n in range(501)]},
        {"tool_deny_list"},
    ),
    "a tool's name that is too long": ({"tool_deny_list": ["x" * 257]}, {"tool_deny_list.0"}),
    "a tool's name with a NUL": ({"tool_deny_list": ["a", "b\0"]}, {"tool_deny_list.1"}),
    "an unknown setting of a tool": (setting(aproval="never"), {"tool_settings.close.aproval"}),
    "a bad setting of a tool": (setting(plan_mode="maybe"), {"tool_settings.close.plan_mode"}),
    "a setting for no tool": ({"tool_settings": {" ": {}}}, {"tool_settings"}),
    "settings as a list": ({"tool_settings": ["close"]}, {"tool_settings"}),
    "a group by its name": ({"access": "groups", "group_ids": ["support"]}, {"group_ids.0"}),
    "a group that does not exist": ({"access": "groups", "group_ids": [NOBODY]}, {"group_ids"}),
    "a group where a list should be": ({"group_ids": NOBODY}, {"group_ids"}),
    "no time": ({"tool_timeout_seconds": 0}, {"tool_timeout_seconds"}),
    "less than no time": ({"tool_timeout_seconds": -1}, {"tool_timeout_seconds"}),
    "more than an hour": ({"tool_timeout_seconds": 3601}, {"tool_timeout_seconds"}),
    "half a second": ({"tool_timeout_seconds": 1.5}, {"tool_timeout_seconds"}),
    "a time in words": ({"tool_timeout_seconds": "60"}, {"tool_timeout_seconds"}),
    "an icon over http": ({"icon_url": "http://icons.example/i.png"}, {"icon_url"}),
    "an icon that is a script": ({"icon_url": "javascript:alert(1)"}, {"icon_url"}),
    "an icon of ours": ({"icon_url": "/icon.png"}, {"icon_url"}),
    "an icon that is a page": ({"icon_url": image(9, "text/html")}, {"icon_url"}),
    "an icon that is not base64": ({"icon_url": "data:image/png;base64,?"}, {"icon_url"}),
    "an icon that is too large": ({"icon_url": image(64 * 1024 + 1)}, {"icon_url"}),
}

OURS = (
    "Mcp-Method",
    "MCP-Param-City",
    "Last-Event-ID",
    "accept-encoding",
    "Expect",
    "Upgrade",
    "TE",
    "Trailer",
    "Keep-Alive",
    "Proxy-Authorization",
    "Traceparent",
    "tracestate",
    "X-Coder-Signature",
    "x-coder-signature-timestamp",
)

LOST: list[Mistake] = [
    ({"api_key_value": "s3cret"}, {"api_key_value"}),
    ({"api_key_header": "X-Key", "enabled": True}, {"api_key_header"}),
    ({"custom_headers": {"X-Key": "s3cret"}}, {"custom_headers"}),
    (OAUTH2 | {"auth_type": "none"}, OAUTH2.keys() - {"auth_type"}),
    (OAUTH2 | {"api_key_value": "s3cret"}, {"api_key_value"}),
    (API_KEY | {"oauth2_client_secret": "s3cret"}, {"oauth2_client_secret"}),
    (
        API_KEY | {"auth_type": "custom_headers", "custom_headers": {"A": "1"}},
        {"api_key_header", "api_key_value"},
    ),
]

REQUIRED = ("display_name", "slug", "transport", "url", "auth_type", "availability")


async def stored(db: Database) -> list[str]:
    """All that a change of a server could leave behind."""
    rows = await db.fetch(
        """SELECT s::text AS kept FROM mcp_server_configs s
        UNION ALL SELECT g::text FROM mcp_server_groups g
        UNION ALL SELECT a::text FROM audit_log a
        UNION ALL SELECT p::text FROM policy_state p ORDER BY 1"""
    )
    return [row["kept"] for row in rows]


async def add(admin: Person, **fields: Any) -> str:
    """The path of a new server."""
    answer = await admin.post("/mcp/servers", TICKETS | fields)
    assert answer.status_code == 201, answer.text
    return f"/mcp/servers/{answer.json()['id']}"


def named(answer: Any) -> set[str]:
    assert "s3cret" not in answer.text
    return {validation["field"] for validation in answer.json()["validations"]}


@pytest.mark.parametrize(("fields", "wrong"), MISTAKES.values(), ids=MISTAKES.keys())
async def test_a_mistake_is_refused_by_its_field(
    admin: Person, db: Database, fields: dict[str, Any], wrong: set[str]
) -> None:
    path = await add(admin, slug="there")
    before = await stored(db)
    for answer in (
        await admin.post("/mcp/servers", TICKETS | fields),
        await admin.patch(path, fields),
    ):
        assert (answer.status_code, named(answer)) == (400, wrong), answer.text
    assert await stored(db) == before


@pytest.mark.parametrize("field", REQUIRED)
async def test_what_is_required_is_neither_absent_nor_null(
    admin: Person, db: Database, field: str
) -> None:
    before = await stored(db)
    without = {name: value for name, value in TICKETS.items() if name != field}
    for body in (without, TICKETS | {field: None}):
        answer = await admin.post("/mcp/servers", body)
        assert (answer.status_code, named(answer)) == (400, {field})
    assert await stored(db) == before


@pytest.mark.parametrize("name", OURS)
async def test_a_header_that_we_write_ourselves_cannot_be_configured(
    admin: Person, db: Database, name: str
) -> None:
    before = await stored(db)
    keyed = await admin.post("/mcp/servers", TICKETS | API_KEY | {"api_key_header": name})
    headed = await admin.post("/mcp/servers", TICKETS | headers(**{name: "s3cret"}))
    assert (keyed.status_code, named(keyed)) == (400, {"api_key_header"})
    assert (headed.status_code, named(headed)) == (400, {"custom_headers"})
    assert await stored(db) == before


@pytest.mark.parametrize(("change", "wrong"), LOST)
async def test_a_credential_that_would_not_be_kept_is_refused(
    admin: Person, db: Database, change: dict[str, Any], wrong: set[str]
) -> None:
    path = await add(admin)
    before = await stored(db)
    answer = await admin.patch(path, change)
    assert (answer.status_code, named(answer)) == (400, wrong)
    assert await stored(db) == before


async def test_a_slug_is_given_once(admin: Person, db: Database) -> None:
    path = await add(admin)
    await add(admin, slug="other")
    before = await stored(db)
    again = await admin.post("/mcp/servers", TICKETS)
    renamed = await admin.patch(path, {"slug": "other"})
    assert again.json()["message"] == "MCP server config already exists."
    assert renamed.json()["message"] == "MCP server config slug already exists."
    for answer in (again, renamed):
        assert (answer.status_code, named(answer)) == (409, {"slug"})
    assert await stored(db) == before


@pytest.mark.parametrize("version", [0, -1, "1", 1.5, True, 2**63])
async def test_a_version_is_a_number_that_was_read(
    admin: Person, db: Database, version: Any
) -> None:
    path = await add(admin)
    before = await stored(db)
    answer = await admin.patch(path, {"enabled": True, "version": version})
    assert (answer.status_code, named(answer)) == (400, {"version"})
    assert await stored(db) == before


@pytest.mark.parametrize("tag", ["1", '"x"', 'w/"1"', "W/1", '"1", "2"', "", '"-1"', '"1'])
async def test_an_etag_is_one_of_ours(admin: Person, db: Database, tag: str) -> None:
    path = await add(admin)
    before = await stored(db)
    for method, body in (("PATCH", {"enabled": True}), ("DELETE", None)):
        answer = await admin.http.request(method, BASE + path, json=body, headers={"If-Match": tag})
        assert (answer.status_code, named(answer)) == (400, {"If-Match"})
    assert await stored(db) == before


async def test_the_second_of_two_administrators_is_told(admin: Person, db: Database) -> None:
    path = await add(admin)
    await admin.patch(path, {"description": "the first one's", "version": 1})
    before = await stored(db)
    change = {"description": "the second one's"}
    old = {"If-Match": '"1"'}
    answers = {
        "version": await admin.patch(path, change | {"version": 1}),
        "If-Match": await admin.http.patch(BASE + path, json=change, headers=old),
        "": await admin.http.delete(BASE + path, headers=old),
    }
    for field, answer in answers.items():
        assert (answer.status_code, named(answer)) == (409, {field or "If-Match"})
        assert answer.json()["detail"] == "The current version is 2."
    both = await admin.http.patch(BASE + path, json=change | {"version": 2}, headers=old)
    assert (both.status_code, named(both)) == (409, {"If-Match"})
    assert await stored(db) == before


async def test_what_is_gone_cannot_be_changed(admin: Person, db: Database) -> None:
    path = await add(admin)
    assert (await admin.delete(path)).status_code == 204
    before = await stored(db)
    for gone in (path, f"/mcp/servers/{uuid4()}"):
        assert (await admin.patch(gone, {"enabled": True, "version": 1})).status_code == 404
        assert (await admin.delete(gone)).status_code == 404
    answer = await admin.patch("/mcp/servers/tickets", {"enabled": True})
    assert (answer.status_code, answer.json()["message"]) == (400, "Invalid MCP server config ID.")
    assert await stored(db) == before


@pytest.mark.parametrize("sent", [b"", b"{", b"[]", b'{"slug": "a", }', b"\xff", b"NaN"])
async def test_a_body_is_a_json_object(admin: Person, db: Database, sent: bytes) -> None:
    path = await add(admin)
    before = await stored(db)
    kind = {"content-type": "application/json"}
    for answer in (
        await admin.http.post(f"{BASE}/mcp/servers", content=sent, headers=kind),
        await admin.http.patch(BASE + path, content=sent, headers=kind),
    ):
        assert (answer.status_code, named(answer)) == (400, {"body"}), answer.text
    assert await stored(db) == before


async def test_a_body_without_end_is_too_large(admin: Person, db: Database) -> None:
    path = await add(admin)
    before = await stored(db)
    endless = {"description": "x" * (2 * 2**20)}
    assert (await admin.post("/mcp/servers", TICKETS | endless)).status_code == 413
    assert (await admin.patch(path, endless)).status_code == 413
    assert await stored(db) == before


async def test_members_change_nothing(admin: Person, member: Person, db: Database) -> None:
    path = await add(admin, enabled=True)
    before = await stored(db)
    assert (await member.post("/mcp/servers", TICKETS | {"slug": "mine"})).status_code == 403
    assert (await member.patch(path, {"enabled": False})).status_code == 403
    assert (await member.delete(path)).status_code == 403
    assert await stored(db) == before
