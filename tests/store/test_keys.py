"""What is encrypted with what: the list of columns, keys by fingerprint, compare-and-set."""

from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr
from sqlmodel import SQLModel

from chatd.core.errors import Unavailable
from chatd.core.servers import McpServer
from chatd.store import keys, processes, tables
from chatd.store.db import Database
from chatd.store.health import read_servers
from chatd.store.hot.claiming import SERVER_ROW
from chatd.store.keys import SECRET_COLUMNS, Sealed, SecretColumn
from chatd.store.loading import TurnLoader
from chatd.store.secrets import KeyRing
from tests.seed import KEYS, make_server
from tests.waiting import one

OTHERS = KeyRing({"other": b"o" * 32})
KEYED: dict[str, Any] = {
    "auth_type": "api_key",
    "api_key_header": "X-Key",
    "api_key_value": SecretStr("s3cret"),
}
VALUE = SecretColumn("mcp_server_configs", "api_key_value")


def test_every_column_with_a_key_id_is_listed() -> None:
    assert tables is not None
    found = {
        SecretColumn(table.name, column.name.removesuffix("_key_id"))
        for table in SQLModel.metadata.tables.values()
        for column in table.columns
        if column.name.endswith("_key_id") and column.name.removesuffix("_key_id") in table.columns
    }
    assert found == set(SECRET_COLUMNS)


def test_a_fingerprint_tells_keys_apart_and_not_the_key() -> None:
    same = KeyRing({"a": b"k" * 32, "b": b"k" * 32, "c": b"l" * 32}).fingerprints
    assert same["a"] == same["b"] != same["c"]
    assert len(same["a"]) == 16


async def test_an_id_that_stands_for_another_key_is_found(db: Database) -> None:
    assert await keys.register_keys(db, {"a": "1", "b": "2"}) == set()
    assert await keys.register_keys(db, {"a": "1", "b": "2"}) == set()
    assert await keys.register_keys(db, {"a": "1", "b": "9", "c": "3"}) == {"b"}
    known = {key.id: key.fingerprint for key in await keys.list_keys(db)}
    assert known == {"a": "1", "b": "2", "c": "3"}


async def test_who_only_looks_notes_no_key(db: Database) -> None:
    assert await keys.find_other_keys(db, {"a": "typo"}) == set()
    assert await keys.list_keys(db) == []
    await keys.register_keys(db, {"a": "1"})
    assert await keys.find_other_keys(db, {"a": "typo", "b": "2"}) == {"a"}
    assert [key.id for key in await keys.list_keys(db)] == ["a"]


async def seen_earlier(db: Database) -> None:
    """The keys known now were noted by processes that have had the time to beat."""
    await db.fetch("UPDATE encryption_keys SET first_seen_at = first_seen_at - interval '1 minute'")


async def test_an_id_that_stands_for_nothing_takes_another_key(db: Database) -> None:
    await keys.register_keys(db, {"a": "typo"})
    assert await keys.register_keys(db, {"a": "1"}) == {"a"}
    await seen_earlier(db)
    assert await keys.register_keys(db, {"a": "1"}) == set()
    assert await keys.register_keys(db, {"a": "typo"}) == {"a"}


async def test_an_id_that_a_process_has_takes_no_other_key(db: Database) -> None:
    await keys.register_keys(db, {"a": "1"})
    await processes.beat(db, "p", "api", "1", capacity=0, running=0, key_ids=["a"])
    await seen_earlier(db)
    assert await keys.register_keys(db, {"a": "2"}) == {"a"}
    await processes.end(db, "p")
    assert await keys.register_keys(db, {"a": "2"}) == set()


async def test_an_id_that_encrypts_something_takes_no_other_key(db: Database) -> None:
    await keys.register_keys(db, KEYS.fingerprints)
    server_id = await make_server(db, **KEYED)
    await seen_earlier(db)
    assert await keys.register_keys(db, {"test": "other"}) == {"test"}
    await db.fetch("DELETE FROM mcp_server_configs WHERE id = $1", server_id)
    assert await keys.register_keys(db, {"test": "other"}) == set()


async def test_without_tables_there_is_nothing_to_compare_with(empty_database: str) -> None:
    db = Database(empty_database, pool_size=1)
    with pytest.raises(Unavailable, match="migrated"):
        await keys.register_keys(db, KEYS.fingerprints)
    await db.close()


async def test_a_value_that_was_changed_is_not_replaced(db: Database) -> None:
    await make_server(db, **KEYED)
    (sealed,) = await keys.read_others(db, VALUE, "new", None)
    changed = replace(sealed, ciphertext=b"as it was before")
    assert not await keys.replace_sealed(db, VALUE, changed, b"new", "new")
    assert await keys.read_others(db, VALUE, "new", None) == [sealed]
    assert await keys.replace_sealed(db, VALUE, sealed, b"new", "new")
    assert await keys.read_others(db, VALUE, "new", None) == []


async def test_values_are_counted_by_column_and_key(db: Database) -> None:
    for slug in ("a", "b"):
        await make_server(db, slug, **KEYED)
    assert await keys.list_uses(db) == [keys.KeyUse(VALUE, "test", 2)]


async def test_batches_go_on_after_the_last_row(db: Database) -> None:
    ids = sorted([await make_server(db, slug, **KEYED) for slug in ("a", "b")])
    found = await keys.read_others(db, VALUE, "new", None)
    assert [sealed.row_id for sealed in found] == ids
    (rest,) = await keys.read_others(db, VALUE, "new", ids[0])
    assert isinstance(rest, Sealed)
    assert rest.row_id == ids[1]
    assert await keys.read_others(db, VALUE, "test", None) == []


async def test_a_ciphertext_moved_to_another_row_or_column_is_unreadable(db: Database) -> None:
    await make_server(db, "a", **KEYED)
    await make_server(db, "b", **(KEYED | {"api_key_value": SecretStr("canary")}))
    await db.fetch(
        """UPDATE mcp_server_configs b SET api_key_value = a.api_key_value,
            signing_secret = b.api_key_value, signing_secret_key_id = b.api_key_value_key_id
        FROM mcp_server_configs a WHERE a.slug = 'a' AND b.slug = 'b'"""
    )
    first, second = [found.facts for found in await read_servers(db, KEYS)]
    assert first.unreadable == ()
    assert len(second.unreadable) == 2
    assert "api_key_value" in second.unreadable[0]
    assert "signing_secret" in second.unreadable[1]
    assert "canary" not in "".join(second.unreadable)


async def test_what_could_not_be_read_is_read_once_another_key_encrypts_it(db: Database) -> None:
    """Remembered rows: rotation moves the key and not the row's version."""
    server_id = await make_server(db, **KEYED)
    loader = TurnLoader(db, OTHERS)

    async def loaded() -> McpServer:
        servers = f"jsonb_agg({SERVER_ROW.format(user='NULL')}) AS servers"
        row = await one(db, f"SELECT {servers} FROM mcp_server_configs s")
        (server,) = loader.read_servers(row["servers"])
        return server

    unusable = await loaded()
    assert unusable.auth.type == "unusable"
    (sealed,) = await keys.read_others(db, VALUE, "other", None)
    place = {"table": VALUE.table, "column": VALUE.column}
    new, key_id = OTHERS.encrypt("s3cret", row_id=server_id, **place)
    assert await keys.replace_sealed(db, VALUE, sealed, new, key_id)
    readable = await loaded()
    assert readable.version == unusable.version
    assert readable.auth.headers() == {"X-Key": "s3cret"}
