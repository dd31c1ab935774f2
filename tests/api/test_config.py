"""Settings through the front door: administrators for everybody, users for themselves."""

from typing import Any
from uuid import UUID, uuid4

import pytest

from chatd.core.config import DEFAULT_SYSTEM_PROMPT, DeploymentConfig
from chatd.store.config import read_config
from chatd.store.db import Database, load
from tests.api.conftest import Person

PROMPT = {"system_prompt": "Be kind.", "include_default_system_prompt": False}
NO_OVERRIDES = {"title": None, "explore": None, "general": None}
NO_LIMITS = {"enabled": False, "default_limit_micros": 0, "period": "month"}

SETTINGS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "system-prompt",
        {"system_prompt": "", "include_default_system_prompt": True},
        PROMPT,
    ),
    (
        "plan-mode-instructions",
        {"plan_mode_instructions": ""},
        {"plan_mode_instructions": "Three steps."},
    ),
    ("auto-archive-days", {"auto_archive_days": 0}, {"auto_archive_days": 90}),
    ("retention-days", {"retention_days": 30}, {"retention_days": 0}),
    (
        "usage-limits",
        NO_LIMITS,
        {"enabled": True, "default_limit_micros": 5_000_000, "period": "week"},
    ),
    ("model-overrides", NO_OVERRIDES, NO_OVERRIDES),
]


@pytest.mark.parametrize(("name", "default", "new"), SETTINGS)
async def test_a_setting_has_a_default_until_an_administrator_sets_it(
    admin: Person, name: str, default: dict[str, Any], new: dict[str, Any]
) -> None:
    path = f"/chats/config/{name}"
    assert default.items() <= (await admin.get(path)).json().items()
    put = await admin.put(path, new)
    assert put.status_code == 200, put.text
    assert new.items() <= put.json().items()
    assert (await admin.get(path)).json() == put.json()


@pytest.mark.parametrize(("name", "default", "new"), SETTINGS)
async def test_members_neither_see_nor_set_what_counts_for_everybody(
    member: Person, db: Database, name: str, default: dict[str, Any], new: dict[str, Any]
) -> None:
    path = f"/chats/config/{name}"
    assert (await member.get(path)).status_code == 403
    assert (await member.put(path, new)).status_code == 403
    assert await read_config(db) == DeploymentConfig()


@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("system-prompt", {"system_prompt": "é" * 65_537}, "A prompt has at most 128 KiB."),
        ("user-prompt", {"custom_prompt": "x" * 131_073}, "A prompt has at most 128 KiB."),
        (
            "plan-mode-instructions",
            {"plan_mode_instructions": "x" * 131_073},
            "A prompt has at most 128 KiB.",
        ),
        ("plan-mode-instructions", {}, "The request has invalid values."),
        ("system-prompt", {}, "The request has invalid values."),
        ("system-prompt", {"text": "typo"}, "The request has invalid values."),
        ("auto-archive-days", {"auto_archive_days": 3651}, "The request has invalid values."),
        ("auto-archive-days", {"auto_archive_days": "7"}, "The request has invalid values."),
        ("retention-days", {"retention_days": -1}, "The request has invalid values."),
        ("usage-limits", {"enabled": True, "period": "year"}, "The request has invalid values."),
        (
            "usage-limits",
            {"enabled": True, "default_limit_micros": -1},
            "The request has invalid values.",
        ),
        (
            "model-overrides",
            {"title": "0198c0de-0000-7000-8000-000000000000"},
            "Model config 0198c0de-0000-7000-8000-000000000000 does not exist or is disabled.",
        ),
    ],
)
async def test_a_bad_value_changes_nothing(
    admin: Person, db: Database, name: str, body: dict[str, Any], message: str
) -> None:
    answer = await admin.put(f"/chats/config/{name}", body)
    assert (answer.status_code, answer.json()["message"]) == (400, message)
    assert await db.fetch("SELECT 1 FROM deployment_settings") == []
    assert await db.fetch("SELECT 1 FROM user_settings") == []


async def test_a_prompt_may_fill_its_limit(admin: Person, db: Database) -> None:
    longest = "é" * 65_536
    await admin.put("/chats/config/system-prompt", {"system_prompt": longest})
    assert (await read_config(db)).system_prompt.text == longest


async def test_our_own_prompt_is_shown_beside_the_administrators(admin: Person) -> None:
    answer = await admin.get("/chats/config/system-prompt")
    assert answer.json()["default_system_prompt"] == DEFAULT_SYSTEM_PROMPT


async def test_an_override_is_set_replaced_and_taken_away(
    admin: Person, db: Database, model: str
) -> None:
    path = "/chats/config/model-overrides"
    assert (await admin.put(path, {"title": model})).json() == {**NO_OVERRIDES, "title": model}
    assert (await read_config(db)).title_model_config_id == UUID(model)
    await admin.put(path, {"explore": model, "title": None})
    config = await read_config(db)
    assert config.title_model_config_id is None
    assert config.explore_model_config_id == UUID(model)
    assert (await admin.put(path, {})).json() == NO_OVERRIDES


async def test_a_disabled_model_cannot_be_an_override(admin: Person, model: str) -> None:
    await admin.patch(f"/chats/model-configs/{model}", {"enabled": False})
    answer = await admin.put("/chats/config/model-overrides", {"general": model})
    assert answer.status_code == 400


async def test_every_change_of_the_deployment_is_audited(admin: Person, db: Database) -> None:
    await admin.put("/chats/config/retention-days", {"retention_days": 7})
    answer = await admin.put("/chats/config/retention-days", {"retention_days": 8})
    rows = await db.fetch("SELECT * FROM audit_log ORDER BY id")
    assert [(row["action"], row["target_type"], row["target_id"]) for row in rows] == [
        ("update", "deployment_setting", "retention_days")
    ] * 2
    assert [(load(row["before"]), load(row["after"])) for row in rows] == [
        ({"retention_days": 30}, {"retention_days": 7}),
        ({"retention_days": 7}, {"retention_days": 8}),
    ]
    assert {row["actor_id"] for row in rows} == {admin.user.id}
    assert rows[1]["request_id"] == answer.headers["x-request-id"]


async def test_a_users_prompt_is_theirs_alone(admin: Person, member: Person) -> None:
    path = "/chats/config/user-prompt"
    assert (await member.get(path)).json() == {"custom_prompt": ""}
    await member.put(path, {"custom_prompt": "Answer in rhymes."})
    assert (await member.get(path)).json() == {"custom_prompt": "Answer in rhymes."}
    assert (await admin.get(path)).json() == {"custom_prompt": ""}


async def test_a_threshold_is_set_by_user_and_model(
    admin: Person, member: Person, model: str
) -> None:
    path = "/chats/config/user-compaction-thresholds"
    assert (await member.get(path)).json() == {"thresholds": []}
    for percent in (50, 0):
        put = await member.put(f"{path}/{model}", {"threshold_percent": percent})
        expected = {"model_config_id": model, "threshold_percent": percent}
        assert put.json() == expected
        assert (await member.get(path)).json() == {"thresholds": [expected]}
    assert (await admin.get(path)).json() == {"thresholds": []}
    assert (await member.delete(f"{path}/{model}")).status_code == 204
    assert (await member.get(path)).json() == {"thresholds": []}
    assert (await member.delete(f"{path}/{model}")).status_code == 404


async def test_a_threshold_needs_a_model_and_a_percentage(member: Person, model: str) -> None:
    path = "/chats/config/user-compaction-thresholds"
    unknown = await member.put(f"{path}/{uuid4()}", {"threshold_percent": 50})
    assert (unknown.status_code, unknown.json()["message"]) == (404, "Model config not found.")
    for bad in (101, -1, 1.5, "50"):
        assert (await member.put(f"{path}/{model}", {"threshold_percent": bad})).status_code == 400
    assert (await member.put(f"{path}/nonsense", {"threshold_percent": 5})).status_code == 400
