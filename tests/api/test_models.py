"""Models through the front door: administrators configure, everybody chooses."""

from typing import Any
from uuid import uuid4

import pytest

from chatd.store.db import Database, load
from tests.api.conftest import Person

OPENAI: dict[str, Any] = {
    "provider": "openai",
    "display_name": "OpenAI",
    "api_key": "sk-very-secret-key",
}


async def add_provider(admin: Person, **fields: Any) -> Any:
    answer = await admin.post("/chats/providers", OPENAI | fields)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def add_config(admin: Person, provider_id: str, **fields: Any) -> Any:
    body = {"provider_id": provider_id, "model": "gpt", "context_limit": 128_000}
    answer = await admin.post("/chats/model-configs", body | fields)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def policy_version(db: Database) -> int:
    row = await db.fetch_one("SELECT version FROM policy_state")
    assert row is not None
    return row["version"]


async def test_a_provider_is_added_changed_and_deleted(admin: Person, db: Database) -> None:
    made = await add_provider(admin, base_url=" https://models.example/v1/ ")
    assert (made["has_api_key"], made["base_url"]) == (True, "https://models.example/v1")
    path = f"/chats/providers/{made['id']}"
    assert (await admin.get(path)).json() == made
    assert (await admin.get("/chats/providers")).json() == [made]
    version = await policy_version(db)
    changed = (await admin.patch(path, {"enabled": False, "base_url": None})).json()
    assert (changed["enabled"], changed["base_url"]) == (False, made["base_url"])
    assert changed["has_api_key"] is True
    assert (await admin.patch(path, {"api_key": ""})).json()["has_api_key"] is False
    assert await policy_version(db) == version + 2
    assert (await admin.delete(path)).status_code == 204
    assert (await admin.get(path)).status_code == 404
    assert (await admin.get("/chats/providers")).json() == []


async def test_a_key_is_shown_nowhere(admin: Person, db: Database) -> None:
    made = await add_provider(admin)
    path = f"/chats/providers/{made['id']}"
    answer = await admin.patch(path, {"api_key": "sk-another-secret"})
    assert "secret" not in answer.text
    for row in await db.fetch("SELECT a::text AS entry FROM audit_log a"):
        assert "secret" not in row["entry"]
        assert "[redacted]" in row["entry"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"provider": "anthropic"}, "The request has invalid values."),
        ({"provider": "openai-compat"}, "An openai-compat provider needs a base_url."),
        ({"base_url": "ftp://x"}, "A URL must begin"),
        ({"base_url": "https://user:pw@x/v1"}, "A URL must begin"),
        ({"base_url": "https://x:99999/v1"}, "A URL must begin"),
        ({"base_url": "https://"}, "A URL must begin"),
        ({"base_url": "https://x/#a"}, "A URL must begin"),
        ({"api_key": "a\nb"}, "A secret must be printable"),
        ({"api_key": "x" * 9000}, "A secret has at most"),
        ({"enabled": "true"}, "The request has invalid values."),
        ({"surprise": 1}, "The request has invalid values."),
        ({"display_name": "x" * 201}, "The request has invalid values."),
    ],
)
async def test_a_bad_provider_is_refused(
    admin: Person, db: Database, fields: dict[str, Any], message: str
) -> None:
    answer = await admin.post("/chats/providers", OPENAI | fields)
    assert answer.status_code == 400
    assert answer.json()["message"].startswith(message)
    assert "pw" not in answer.text
    assert await db.fetch("SELECT 1 FROM model_providers") == []


@pytest.mark.parametrize("turns", [0, -1, 10_001, 1.5, "3", True])
async def test_a_limit_of_turns_is_a_whole_number_from_1_to_10000(
    admin: Person, turns: Any
) -> None:
    answer = await admin.post("/chats/providers", OPENAI | {"max_concurrent_turns": turns})
    assert answer.status_code == 400
    assert answer.json()["validations"][0]["field"] == "max_concurrent_turns"


async def test_a_limit_of_turns_is_set_kept_and_taken_away(admin: Person) -> None:
    path = f"/chats/providers/{(await add_provider(admin))['id']}"

    async def patched(body: dict[str, Any]) -> Any:
        return (await admin.patch(path, body)).json()["max_concurrent_turns"]

    assert (await admin.get(path)).json()["max_concurrent_turns"] is None
    assert await patched({"max_concurrent_turns": 3}) == 3
    assert await patched({"enabled": True}) == 3
    assert await patched({"max_concurrent_turns": None}) is None


async def test_unknown_fields_are_named(admin: Person) -> None:
    answer = await admin.post("/chats/providers", OPENAI | {"surprise": 1})
    assert answer.json()["validations"][0]["field"] == "surprise"


async def test_a_change_is_checked_as_a_whole(admin: Person) -> None:
    made = await add_provider(admin)
    answer = await admin.patch(f"/chats/providers/{made['id']}", {"provider": "openai-compat"})
    assert answer.json()["message"] == "An openai-compat provider needs a base_url."


async def test_a_display_name_is_given_once(admin: Person) -> None:
    await add_provider(admin)
    answer = await admin.post("/chats/providers", OPENAI)
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


async def test_a_config_is_added_changed_and_deleted(admin: Person) -> None:
    owner = (await add_provider(admin))["id"]
    made = await add_config(admin, owner, options={"temperature": 0.5})
    assert made["is_default"] is True
    assert made["compression_threshold"] == 70
    assert made["options"] == {"max_output_tokens": 32_000, "temperature": 0.5}
    assert made["created_by"] == str(admin.user.id)
    path = f"/chats/model-configs/{made['id']}"
    assert (await admin.get(path)).json() == made
    changed = (await admin.patch(path, {"options": {"max_output_tokens": 5}})).json()
    assert changed["options"] == {"max_output_tokens": 5}
    assert changed["is_default"] is True
    assert (await admin.delete(path)).status_code == 204
    assert (await admin.get(path)).status_code == 404
    assert (await admin.delete(path)).status_code == 404
    assert (await admin.get("/chats/model-configs")).json() == []


async def test_large_windows_are_compacted_earlier(admin: Person) -> None:
    owner = (await add_provider(admin))["id"]
    large = await add_config(admin, owner, context_limit=500_000)
    asked = await add_config(admin, owner, context_limit=500_000, compression_threshold=80)
    assert (large["compression_threshold"], asked["compression_threshold"]) == (30, 80)


@pytest.mark.parametrize(
    "fields",
    [
        {"context_limit": 0},
        {"context_limit": 2**31},
        {"context_limit": "many"},
        {"compression_threshold": 101},
        {"model": " "},
        {"options": {"temperature": 3}},
        {"options": {"surprise": 1}},
        {"provider_id": "x"},
        {"is_default": True, "enabled": False},
        {"surprise": 1},
    ],
)
async def test_a_bad_config_is_refused(admin: Person, db: Database, fields: dict[str, Any]) -> None:
    owner = (await add_provider(admin))["id"]
    body = {"provider_id": owner, "model": "gpt", "context_limit": 128_000}
    answer = await admin.post("/chats/model-configs", body | fields)
    assert answer.status_code == 400, answer.text
    assert await db.fetch("SELECT 1 FROM model_configs") == []


async def test_a_config_needs_a_provider_that_exists(admin: Person) -> None:
    body = {"provider_id": str(uuid4()), "model": "gpt", "context_limit": 1}
    answer = await admin.post("/chats/model-configs", body)
    assert (answer.status_code, answer.json()["message"]) == (404, "Model provider not found.")


async def test_members_choose_and_see_no_more(admin: Person, member: Person) -> None:
    owner = (await add_provider(admin))["id"]
    shown = await add_config(admin, owner)
    await add_config(admin, owner, enabled=False)
    (provider,) = (await member.get("/chats/models")).json()["providers"]
    assert [choice["id"] for choice in provider["models"]] == [shown["id"]]
    assert "base_url" not in provider


async def test_every_change_is_audited(admin: Person, db: Database) -> None:
    owner = await add_provider(admin)
    made = await add_config(admin, owner["id"])
    answer = await admin.patch(f"/chats/model-configs/{made['id']}", {"enabled": False})
    await admin.delete(f"/chats/providers/{owner['id']}")
    rows = await db.fetch("SELECT * FROM audit_log ORDER BY id")
    assert [(row["action"], row["target_type"]) for row in rows] == [
        ("create", "model_provider"),
        ("create", "model_config"),
        ("update", "model_config"),
        ("delete", "model_provider"),
    ]
    assert {row["actor_id"] for row in rows} == {admin.user.id}
    assert rows[2]["request_id"] == answer.headers["x-request-id"]
    assert load(rows[2]["before"]) == {"enabled": True, "is_default": True}
    assert load(rows[2]["after"]) == {"enabled": False, "is_default": False}
