"""Chats through the front door."""

from uuid import UUID, uuid4

import pytest

from chatd.store.db import Database, load
from tests.api.conftest import Person, text

HELLO: dict[str, object] = {"content": text("hello there")}


async def create(person: Person, **fields: object) -> str:
    answer = await person.post("/chats", HELLO | fields)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


async def listed(person: Person, query: str = "") -> list[str]:
    return [chat["id"] for chat in (await person.get(f"/chats{query}")).json()]


async def test_a_new_chat_has_its_first_turn(member: Person, model: str) -> None:
    answer = await member.post(
        "/chats",
        HELLO | {"labels": {"team": "a"}, "plan_mode": "plan", "client_type": "ui", "other": 1},
    )
    chat = answer.json()
    assert answer.status_code == 201
    assert chat["title"] == "hello there"
    assert (chat["status"], chat["plan_mode"], chat["client_type"]) == ("pending", "plan", "ui")
    assert (chat["labels"], chat["mcp_server_ids"]) == ({"team": "a"}, [])
    assert chat["owner_id"] == str(member.user.id)
    assert chat["turn"]["chat_id"] == chat["id"]
    assert (chat["turn"]["status"], chat["turn"]["model_config_id"]) == ("pending", model)
    read = (await member.get(f"/chats/{chat['id']}")).json()
    assert read == {name: value for name, value in chat.items() if name != "turn"}


async def test_messages_and_turns_are_read_back(member: Person, model: str) -> None:
    chat = await create(member)
    answer = await member.post(f"/chats/{chat}/messages", {"content": text("again")})
    assert answer.status_code == 201
    assert answer.json()["queued"] is True
    assert answer.json()["message"] is None
    messages = (await member.get(f"/chats/{chat}/messages")).json()
    assert [message["content"] for message in messages["messages"]] == [text("hello there")]
    assert [message["content"] for message in messages["queued_messages"]] == [text("again")]
    assert messages["has_more"] is False
    turns = (await member.get(f"/chats/{chat}/turns")).json()["turns"]
    assert [turn["status"] for turn in turns] == ["queued", "pending"]
    assert (await member.get(f"/chats/{chat}/turns/{turns[1]['id']}")).json() == turns[1]
    page = await member.get(f"/chats/{chat}/turns?limit=1&before_id={turns[0]['id']}")
    assert page.json()["turns"] == [turns[1]]


async def test_file_references_travel_with_the_message(member: Person, model: str) -> None:
    part = {
        "type": "file-reference",
        "file_name": "a.py",
        "start_line": 1,
        "end_line": 2,
        "content": "x = 1",
    }
    chat = await create(member, content=[*text("look"), part])
    messages = (await member.get(f"/chats/{chat}/messages")).json()["messages"]
    assert messages[0]["content"] == [*text("look"), part]


async def test_somebody_elses_chat_is_not_found(member: Person, admin: Person, model: str) -> None:
    chat = await create(member)
    for path in ("", "/messages", "/turns", f"/turns/{uuid4()}", "/tools", "/stream"):
        answer = await admin.get(f"/chats/{chat}{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path
    assert (await admin.post(f"/chats/{chat}/messages", HELLO)).status_code == 404
    assert (await admin.patch(f"/chats/{chat}", {"title": "x"})).status_code == 404
    assert (await admin.delete(f"/chats/{chat}")).status_code == 404
    assert await listed(admin) == []


async def test_chats_are_paged_and_filtered(member: Person, model: str) -> None:
    first, second, third = [
        await create(member, content=text(words), labels={"n": str(n)})
        for n, words in enumerate(("one fish", "two fish", "red_fish"))
    ]
    assert await listed(member) == [third, second, first]
    assert await listed(member, "?limit=2") == [third, second]
    assert await listed(member, "?limit=2&offset=2") == [first]
    assert await listed(member, f"?after_id={second}") == [first]
    assert await listed(member, "?label=n:1") == [second]
    assert await listed(member, "?label=n:1&label=n2:x") == []
    assert await listed(member, "?q=FISH") == [third, second, first]
    assert await listed(member, "?q=d_f") == [third]
    await member.patch(f"/chats/{second}", {"archived": True})
    assert await listed(member) == [third, first]
    assert await listed(member, "?q=archived:true") == [second]
    assert set(await listed(member, "?q=archived:any fish")) == {first, second, third}


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("?label=nocolon", "Invalid label filter."),
        ("?label=:v", "Invalid label filter."),
        ("?q=archived:maybe", "Invalid q parameter."),
        ("?limit=0", "Invalid limit parameter (1-200)."),
        ("?limit=201", "Invalid limit parameter (1-200)."),
        ("?limit=x", "Invalid limit parameter (1-200)."),
        ("?offset=-1", "The request has invalid values."),
        ("?offset=99999999999999999999", "The request has invalid values."),
        ("?after_id=7", "The request has invalid values."),
    ],
)
async def test_bad_list_parameters_are_refused(member: Person, query: str, message: str) -> None:
    answer = await member.get(f"/chats{query}")
    assert (answer.status_code, answer.json()["message"]) == (400, message)


@pytest.mark.parametrize(
    "query", ["before_id=0", "after_id=-1", "before_id=9223372036854775808", "before_id=1.5"]
)
async def test_bad_message_cursors_are_refused(member: Person, model: str, query: str) -> None:
    chat = await create(member)
    assert (await member.get(f"/chats/{chat}/messages?{query}")).status_code == 400


async def test_message_cursors_must_not_cross(member: Person, model: str) -> None:
    chat = await create(member)
    answer = await member.get(f"/chats/{chat}/messages?before_id=3&after_id=3")
    assert answer.json()["message"] == "after_id must be less than before_id."


async def test_a_chat_is_changed(member: Person, model: str) -> None:
    chat = await create(member)
    changes = {"title": "  New  ", "labels": {"a": "b"}, "plan_mode": "plan", "archived": True}
    answer = await member.patch(f"/chats/{chat}", changes)
    assert (answer.status_code, answer.content) == (204, b"")
    read = (await member.get(f"/chats/{chat}")).json()
    assert (read["title"], read["labels"], read["plan_mode"], read["archived"]) == (
        "New",
        {"a": "b"},
        "plan",
        True,
    )
    refused = await member.patch(f"/chats/{chat}", {"archived": True})
    assert (refused.status_code, refused.json()["message"]) == (400, "Chat is already archived.")
    sent = await member.post(f"/chats/{chat}/messages", HELLO)
    assert (sent.status_code, sent.json()["code"]) == (409, "conflict")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"title": "  "}, "Title cannot be empty."),
        ({"title": "x" * 201}, "Title must be at most 200 characters."),
        ({"plan_mode": "maybe"}, "Invalid plan_mode value."),
        ({"archived": "yes"}, "The request has invalid values."),
        ({"labels": {"-bad": "x"}}, "Label keys are"),
        ({"labels": {"a": ""}}, "Label values have"),
        ({"labels": {"a": "x" * 257}}, "Label values have"),
        ({"labels": {str(n): "x" for n in range(51)}}, "A chat has at most 50 labels."),
        ({"title": "new", "mcp_server_ids": [str(uuid4())]}, "One or more MCP server IDs"),
    ],
)
async def test_bad_changes_change_nothing(
    member: Person, model: str, changes: dict[str, object], message: str
) -> None:
    chat = await create(member)
    answer = await member.patch(f"/chats/{chat}", changes)
    assert answer.status_code == 400
    assert answer.json()["message"].startswith(message)
    assert (await member.get(f"/chats/{chat}")).json()["title"] == "hello there"


async def test_a_deleted_chat_is_gone_at_once(member: Person, model: str) -> None:
    chat = await create(member)
    assert (await member.delete(f"/chats/{chat}")).status_code == 204
    assert (await member.get(f"/chats/{chat}")).status_code == 404
    assert (await member.delete(f"/chats/{chat}")).status_code == 404
    assert await listed(member) == []


BAD_CHATS: list[tuple[dict[str, object], str]] = [
    ({}, "content"),
    ({"content": []}, "content"),
    ({"content": "hello"}, "content"),
    ({"content": text("  ")}, "content.0.text"),
    ({"content": text("x") * 101}, "content"),
    ({"content": [{"type": "file", "file_id": "x"}]}, "content.0"),
    ({"content": [{"text": "no type"}]}, "content.0"),
    ({"content": [{"type": "text", "text": 7}]}, "content.0.text.text"),
    (HELLO | {"plan_mode": "x"}, "plan_mode"),
    (HELLO | {"client_type": "x"}, "client_type"),
    (HELLO | {"system_prompt": "x" * 10_001}, "system_prompt"),
    (HELLO | {"model_config_id": "x"}, "model_config_id"),
    (HELLO | {"mcp_server_ids": ["x"]}, "mcp_server_ids.0"),
    (HELLO | {"mcp_server_ids": [str(uuid4()) for _ in range(101)]}, "mcp_server_ids"),
    (HELLO | {"reasoning_effort": "huge"}, "reasoning_effort"),
]


@pytest.mark.parametrize(("body", "field"), BAD_CHATS)
async def test_a_bad_chat_is_refused_and_not_written(
    member: Person, model: str, db: Database, body: dict[str, object], field: str
) -> None:
    answer = await member.post("/chats", body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["validations"][0]["field"].startswith(field)
    assert await db.fetch("SELECT 1 FROM chats") == []


async def test_unknown_servers_are_named_and_duplicates_collapse(
    member: Person, admin: Person, model: str
) -> None:
    server = {
        "display_name": "s",
        "slug": "s",
        "transport": "sse",
        "url": "http://127.0.0.1:9/",
        "auth_type": "none",
        "availability": "default_off",
        "enabled": True,
    }
    known = (await admin.post("/mcp/servers", server)).json()["id"]
    unknown = str(uuid4())
    answer = await member.post("/chats", HELLO | {"mcp_server_ids": [known, unknown]})
    assert answer.status_code == 400
    assert answer.json()["message"] == "One or more MCP server IDs are invalid."
    assert unknown in answer.json()["detail"]
    assert known not in answer.json()["detail"]
    answer = await member.post("/chats", HELLO | {"mcp_server_ids": [known, known]})
    assert answer.json()["mcp_server_ids"] == [known]


async def test_an_unknown_model_is_refused(member: Person, model: str) -> None:
    answer = await member.post("/chats", HELLO | {"model_config_id": str(uuid4())})
    assert answer.status_code == 400
    chat = await create(member)
    body = HELLO | {"model_config_id": str(uuid4())}
    assert (await member.post(f"/chats/{chat}/messages", body)).status_code == 400


async def test_an_unknown_busy_behavior_is_refused(member: Person, model: str) -> None:
    chat = await create(member)
    answer = await member.post(f"/chats/{chat}/messages", HELLO | {"busy_behavior": "x"})
    assert (answer.status_code, answer.json()["message"]) == (400, "Invalid busy_behavior value.")


async def test_a_turn_waits_for_its_owner_to_connect_or_goes_on(
    member: Person, model: str, db: Database
) -> None:
    await create(member)
    answer = await member.post("/chats", HELLO | {"on_auth_required": "wait"})
    chat = answer.json()["id"]
    await member.post(f"/chats/{chat}/messages", HELLO | {"on_auth_required": "wait"})
    rows = await db.fetch("SELECT on_auth_required AS what FROM turns ORDER BY position")
    assert [row["what"] for row in rows] == ["skip", "wait", "wait"]
    refused = await member.post("/chats", HELLO | {"on_auth_required": "ask"})
    assert refused.status_code == 400
    assert refused.json()["message"] == "Invalid on_auth_required value."


async def test_dynamic_tools_are_kept_with_the_chat(
    member: Person, model: str, db: Database
) -> None:
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
    tools = [{"name": "look", "description": "d", "input_schema": schema}, {"name": "go"}]
    chat = await create(member, unsafe_dynamic_tools=tools)
    row = await db.fetch_one("SELECT dynamic_tools FROM chats WHERE id = $1", UUID(chat))
    assert row is not None
    assert load(row["dynamic_tools"]) == [
        tools[0],
        {"name": "go", "description": "", "input_schema": {"type": "object", "properties": {}}},
    ]


@pytest.mark.parametrize(
    "tools",
    [
        [{"name": ""}],
        [{"description": "no name"}],
        [{"name": "with space"}],
        [{"name": "x" * 65}],
        [{"name": "a"}, {"name": "a"}],
        [{"name": "a", "input_schema": "no object"}],
        [{"name": f"t{number}"} for number in range(251)],
    ],
)
async def test_dynamic_tools_that_will_not_do_are_refused(
    member: Person, model: str, tools: list[object]
) -> None:
    answer = await member.post("/chats", HELLO | {"unsafe_dynamic_tools": tools})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
    assert await listed(member) == []


async def test_chats_are_pinned(member: Person, model: str) -> None:
    first, second = await create(member), await create(member)
    for chat in (first, second):
        assert (await member.patch(f"/chats/{chat}", {"pin_order": 1})).status_code == 204
    await member.patch(f"/chats/{second}", {"pin_order": 1})
    pins = {chat["id"]: chat["pin_order"] for chat in (await member.get("/chats")).json()}
    assert pins == {first: 2, second: 1}
    for wrong in (-1, "1", 1.5, 2**31):
        answer = await member.patch(f"/chats/{first}", {"pin_order": wrong})
        assert answer.status_code == 400, wrong


async def test_the_queue_of_a_chat_is_bounded(member: Person, model: str) -> None:
    chat = await create(member)
    for _ in range(20):
        assert (await member.post(f"/chats/{chat}/messages", HELLO)).status_code == 201
    answer = await member.post(f"/chats/{chat}/messages", HELLO)
    assert answer.status_code == 429
    assert answer.json()["message"] == "Message queue is full."
    assert int(answer.headers["retry-after"]) > 0


async def test_the_same_key_and_body_are_the_same_turn(
    member: Person, admin: Person, model: str
) -> None:
    key = {"Idempotency-Key": "once"}
    body = {"content": text("hello"), "client_type": "ui"}
    first = await member.post("/chats", body, headers=key)
    again = await member.post("/chats", dict(reversed(body.items())), headers=key)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json()["turn"]["id"] == first.json()["turn"]["id"]
    other = await member.post("/chats", HELLO, headers=key)
    assert (other.status_code, other.json()["code"]) == (409, "conflict")
    elses = await admin.post("/chats", body, headers=key)
    assert elses.json()["turn"]["id"] != first.json()["turn"]["id"]
    chat = first.json()["id"]
    elsewhere = await member.post(f"/chats/{chat}/messages", body, headers=key)
    assert elsewhere.json()["turn"]["id"] != first.json()["turn"]["id"]


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\xe9"])
async def test_a_bad_idempotency_key_is_refused(member: Person, model: str, key: str) -> None:
    headers = {"Idempotency-Key": key.encode("latin-1")}
    answer = await member.post("/chats", HELLO, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["message"].startswith("Invalid Idempotency-Key")


async def test_what_fails_before_the_commit_is_json_also_for_a_stream(
    member: Person, model: str
) -> None:
    headers = {"Accept": "text/event-stream"}
    body = HELLO | {"mcp_server_ids": [str(uuid4())]}
    answer = await member.post("/chats", body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
    answer = await member.post(f"/chats/{uuid4()}/messages", HELLO, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_a_chats_model_and_effort_hold_for_the_messages_that_name_none(
    member: Person, model: str
) -> None:
    chat = (await member.post("/chats", {"content": text("hi")})).json()["id"]
    unknown = await member.patch(f"/chats/{chat}", {"model_config_id": str(uuid4()), "title": "x"})
    assert (unknown.status_code, unknown.json()["message"]) == (400, "Invalid model config ID.")
    assert (await member.get(f"/chats/{chat}")).json()["title"] == "hi"
    changed = await member.patch(
        f"/chats/{chat}", {"model_config_id": model, "reasoning_effort": "high"}
    )
    assert changed.status_code == 204
    sent = await member.post(f"/chats/{chat}/messages", {"content": text("more")})
    turn = sent.json()["turn"]
    assert (turn["model_config_id"], turn["reasoning_effort"]) == (model, "high")
