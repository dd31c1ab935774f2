"""Model providers and configs as the store keeps them."""

import os
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr

from chatd.core.errors import Conflict, NotFound
from chatd.store import models
from chatd.store.db import Database
from chatd.store.models import ConfigSettings, ProviderSettings, View
from chatd.store.secrets import KeyRing

KEYS = KeyRing({"k1": os.urandom(32)})
OPENAI = ProviderSettings("openai", "OpenAI", api_key=SecretStr("sk-very-secret"))


async def provider(db: Database, settings: ProviderSettings = OPENAI) -> View:
    async with db.transaction() as session:
        return await models.create_provider(session, KEYS, settings)


async def config(db: Database, provider_id: str, **fields: Any) -> View:
    settings = ConfigSettings("m", 1000, **fields)
    async with db.transaction() as session:
        return await models.create_config(session, UUID(provider_id), settings)


async def change(db: Database, config_id: str, **fields: Any) -> View:
    settings = ConfigSettings("m", 1000, **fields)
    async with db.transaction() as session:
        return await models.update_config(session, UUID(config_id), settings)


async def defaults(db: Database) -> list[str]:
    async with db.transaction() as session:
        return [view["id"] for view in await models.list_configs(session) if view["is_default"]]


async def test_the_key_is_kept_encrypted_and_bound_to_its_row(db: Database) -> None:
    made = await provider(db)
    assert made["has_api_key"] is True
    assert "sk-very-secret" not in str(made)
    row = await db.fetch_one("SELECT api_key, api_key_key_id, p::text AS t FROM model_providers p")
    assert row is not None
    assert b"sk-very-secret" not in row["api_key"]
    place = {"table": "model_providers", "column": "api_key"}
    opened = KEYS.decrypt(row["api_key"], row["api_key_key_id"], row_id=UUID(made["id"]), **place)
    assert opened.get_secret_value() == "sk-very-secret"


async def test_a_key_stays_until_it_is_taken_away(db: Database) -> None:
    made = await provider(db)
    for key, has in ((None, True), (SecretStr("other"), True), (SecretStr(""), False)):
        settings = ProviderSettings("openai", "OpenAI", api_key=key)
        async with db.transaction() as session:
            after = await models.update_provider(session, KEYS, UUID(made["id"]), settings)
        assert after["has_api_key"] is has


async def test_display_names_are_given_once_among_the_living(db: Database) -> None:
    made = await provider(db)
    with pytest.raises(Conflict):
        await provider(db)
    async with db.transaction() as session:
        await models.delete_provider(session, UUID(made["id"]))
    await provider(db)


async def test_a_deleted_provider_takes_its_configs_and_loses_its_key(db: Database) -> None:
    made = await provider(db)
    gone = await config(db, made["id"])
    async with db.transaction() as session:
        await models.delete_provider(session, UUID(made["id"]))
        assert await models.list_providers(session) == []
        assert await models.list_configs(session) == []
        with pytest.raises(NotFound):
            await models.get_provider(session, UUID(made["id"]))
    with pytest.raises(NotFound):
        await change(db, gone["id"])
    row = await db.fetch_one("SELECT api_key, enabled FROM model_providers")
    assert row is not None
    assert (row["api_key"], row["enabled"]) == (None, False)
    row = await db.fetch_one("SELECT model, enabled, is_default FROM model_configs")
    assert row is not None
    assert (row["model"], row["enabled"], row["is_default"]) == ("m", False, False)


async def test_the_first_enabled_config_is_the_default(db: Database) -> None:
    owner = (await provider(db))["id"]
    await config(db, owner, enabled=False)
    assert await defaults(db) == []
    first = await config(db, owner)
    await config(db, owner)
    assert await defaults(db) == [first["id"]]


async def test_there_is_one_default_at_most(db: Database) -> None:
    owner = (await provider(db))["id"]
    first, second = await config(db, owner), await config(db, owner)
    await change(db, second["id"], is_default=True)
    assert await defaults(db) == [second["id"]]
    third = await config(db, owner, is_default=True)
    assert await defaults(db) == [third["id"]]
    await change(db, third["id"], is_default=True, enabled=False)
    assert await defaults(db) == []
    await change(db, first["id"])
    assert await defaults(db) == []


async def test_a_deleted_config_is_kept_for_the_messages_that_name_it(db: Database) -> None:
    made = await config(db, (await provider(db))["id"])
    async with db.transaction() as session:
        await models.delete_config(session, UUID(made["id"]))
        with pytest.raises(NotFound):
            await models.get_config(session, UUID(made["id"]))
    assert len(await db.fetch("SELECT 1 FROM model_configs WHERE deleted_at IS NOT NULL")) == 1
    assert await defaults(db) == []


async def test_users_choose_from_what_is_enabled(db: Database) -> None:
    owner = (await provider(db))["id"]
    shown = await config(db, owner, display_name="Good", options={"reasoning_effort": None})
    await config(db, owner, enabled=False)
    await provider(db, ProviderSettings("openai", "no key"))
    await provider(db, ProviderSettings("openai-compat", "off", "http://x/v1", enabled=False))
    await provider(db, ProviderSettings("openai-compat", "house", "http://x/v1"))
    choices = {choice["display_name"]: choice for choice in await models.list_choices(db)}
    assert set(choices) == {"OpenAI", "no key", "house"}
    assert choices["OpenAI"]["available"] is True
    assert choices["no key"]["unavailable_reason"] == "missing_api_key"
    assert choices["house"]["models"] == []
    (choice,) = choices["OpenAI"]["models"]
    assert (choice["id"], choice["display_name"]) == (shown["id"], "Good")
    assert choice["is_default"] is True
