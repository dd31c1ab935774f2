"""Groups through the front door, and what changes with them."""

from typing import Any
from uuid import UUID, uuid4

import pytest

from chatd.store.db import Database, load
from tests.api.conftest import BASE, Person

SERVER: dict[str, Any] = {
    "display_name": "s",
    "slug": "s",
    "transport": "sse",
    "url": "https://s.example/",
    "auth_type": "none",
    "availability": "default_off",
    "enabled": True,
}


async def make(admin: Person, name: str = "support", **fields: Any) -> str:
    answer = await admin.post("/groups", {"name": name} | fields)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


async def policy_version(db: Database) -> int:
    return (await db.fetch("SELECT version FROM policy_state"))[0]["version"]


async def audited(db: Database, group: str) -> list[tuple[str, Any, Any]]:
    rows = await db.fetch(
        "SELECT action, before, after FROM audit_log WHERE target_id = $1 ORDER BY at", group
    )
    return [(row["action"], load(row["before"]), load(row["after"])) for row in rows]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("POST", ""),
        ("GET", "/{group}"),
        ("PATCH", "/{group}"),
        ("DELETE", "/{group}"),
        ("GET", "/{group}/members"),
        ("PUT", "/{group}/members/{user}"),
        ("DELETE", "/{group}/members/{user}"),
    ],
)
async def test_members_do_not_govern_groups(
    admin: Person, member: Person, method: str, path: str
) -> None:
    group = await make(admin)
    path = f"{BASE}/groups" + path.format(group=group, user=member.user.id)
    body = {"name": "x"} if method in ("POST", "PATCH") else None
    answer = await member.http.request(method, path, json=body)
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


async def test_what_is_not_there_is_not_found(admin: Person, member: Person) -> None:
    nowhere, group = f"/groups/{uuid4()}", await make(admin)
    assert (await admin.get(nowhere)).status_code == 404
    assert (await admin.patch(nowhere, {"name": "x"})).status_code == 404
    assert (await admin.delete(nowhere)).status_code == 404
    assert (await admin.get(f"{nowhere}/members")).status_code == 404
    for answer in (
        await admin.put(f"{nowhere}/members/{member.user.id}", None),
        await admin.delete(f"{nowhere}/members/{member.user.id}"),
        await admin.put(f"/groups/{group}/members/{uuid4()}", None),
    ):
        assert answer.status_code == 404
    assert (await admin.get("/groups/x")).status_code == 400


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", " "),
        ("name", "x" * 65),
        ("name", "a\u200bb"),
        ("description", "x" * 2001),
        ("members", []),
    ],
)
async def test_a_group_that_makes_no_sense_is_refused(
    admin: Person, field: str, value: object
) -> None:
    answer = await admin.post("/groups", {"name": "g"} | {field: value})
    assert answer.status_code == 400
    assert [problem["field"] for problem in answer.json()["validations"]] == [field]


async def test_a_name_is_given_once(admin: Person, db: Database) -> None:
    await make(admin)
    other = await make(admin, "other")
    for answer in (
        await admin.post("/groups", {"name": "support"}),
        await admin.patch(f"/groups/{other}", {"name": "support"}),
    ):
        assert answer.status_code == 409
        assert answer.json()["validations"][0]["field"] == "name"
    assert [line[0] for line in await audited(db, other)] == ["create"]


async def test_a_group_is_made_listed_and_renamed(admin: Person, db: Database) -> None:
    await make(admin, "zoo")
    group = await make(admin, " support ", description="Who answers.")
    shown = (await admin.get(f"/groups/{group}")).json()
    assert (shown["name"], shown["description"]) == ("support", "Who answers.")
    assert (shown["member_count"], shown["server_ids"]) == (0, [])
    renamed = await admin.patch(f"/groups/{group}", {"name": "help"})
    assert renamed.json() == shown | {"name": "help"}
    listed = (await admin.get("/groups")).json()["groups"]
    assert [each["name"] for each in listed] == ["help", "zoo"]
    assert (await audited(db, group))[1] == ("update", {"name": "support"}, {"name": "help"})


async def test_members_come_and_go_once_and_policy_is_read_anew(
    admin: Person, member: Person, db: Database
) -> None:
    group = await make(admin)
    path = f"/groups/{group}/members"
    before = await policy_version(db)
    for _ in range(2):
        assert (await admin.put(f"{path}/{member.user.id}", None)).status_code == 204
    assert await policy_version(db) > before
    (found,) = (await admin.get(path)).json()["members"]
    assert (found["id"], found["username"]) == (str(member.user.id), "max")
    before = await policy_version(db)
    for _ in range(2):
        assert (await admin.delete(f"{path}/{member.user.id}")).status_code == 204
    assert await policy_version(db) > before
    assert (await admin.get(path)).json() == {"members": [], "has_more": False}
    assert [line[0] for line in await audited(db, group)] == [
        "create",
        "add_member",
        "remove_member",
    ]


async def test_members_are_paged(admin: Person, member: Person) -> None:
    group = await make(admin)
    for person in (member, admin):
        await admin.put(f"/groups/{group}/members/{person.user.id}", None)
    path = f"/groups/{group}/members?limit=1"
    first = (await admin.get(path)).json()
    assert ([each["username"] for each in first["members"]], first["has_more"]) == (["ada"], True)
    second = (await admin.get(f"{path}&after_id={first['members'][0]['id']}")).json()
    assert ([each["username"] for each in second["members"]], second["has_more"]) == (
        ["max"],
        False,
    )


async def test_a_page_after_somebody_who_is_gone_is_refused(admin: Person) -> None:
    group = await make(admin)
    answer = await admin.get(f"/groups/{group}/members", params={"after_id": str(uuid4())})
    assert answer.status_code == 400
    assert [problem["field"] for problem in answer.json()["validations"]] == ["after_id"]


async def test_deleting_a_group_moves_the_servers_that_were_restricted_to_it(
    admin: Person, member: Person, db: Database
) -> None:
    group = await make(admin)
    await admin.put(f"/groups/{group}/members/{member.user.id}", None)
    servers = [
        (await admin.post("/mcp/servers", SERVER | {"slug": slug})).json() for slug in ("s", "t")
    ]
    await db.fetch(
        "INSERT INTO mcp_server_groups (server_id, group_id) VALUES ($1, $2)",
        UUID(servers[0]["id"]),
        UUID(group),
    )
    assert (await admin.get(f"/groups/{group}")).json()["server_ids"] == [servers[0]["id"]]
    before = await policy_version(db)
    assert (await admin.delete(f"/groups/{group}")).status_code == 204
    assert await policy_version(db) > before
    after = [(await admin.get(f"/mcp/servers/{each['id']}")).json() for each in servers]
    assert [each["version"] for each in after] == [servers[0]["version"] + 1, servers[1]["version"]]
    assert (await member.get("/users/me")).json()["groups"] == []
    assert (await admin.delete(f"/groups/{group}")).status_code == 404
    action, before_it, _ = (await audited(db, group))[-1]
    assert action == "delete"
    assert before_it["member_ids"] == [str(member.user.id)]
    assert before_it["server_ids"] == [servers[0]["id"]]
