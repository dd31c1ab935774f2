"""Every statement is one that PostgreSQL accepts for the migrated schema."""

import importlib
import pkgutil
from collections.abc import Iterator

import asyncpg
from sqlalchemy import TextClause
from sqlalchemy.dialects.postgresql.asyncpg import dialect

import chatd.store
from chatd.store import chats, hot, items

FRAGMENTS = {
    hot.USABLE_MODEL,
    hot.SERVERS,  # speaks of the turn it is read for
    chats.USAGE,
    items.OPEN_ITEMS,
}

HOT = """CREATE_CHAT SUBMIT CLAIM CLAIM_LIMITED LOCK_CLAIMS LOAD RELOAD COMMIT_STEP COMMIT_RESULTS
    COMMIT_COMPACTION MARK_SENT RECORD_RESULT FINISH HAND_BACK RENEW LEASES LANDED"""

VERBS = ("SELECT", "WITH", "INSERT", "UPDATE", "DELETE")


def statements() -> Iterator[tuple[str, str]]:
    """Name and SQL of every constant in the store's modules that is a statement."""
    seen: set[str] = set()
    for module in pkgutil.iter_modules(chatd.store.__path__, "chatd.store."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, TextClause):
                sql = str(value.compile(dialect=dialect()))
            elif isinstance(value, str) and value.lstrip(" \n(").startswith(VERBS):
                sql = value
            else:
                continue
            if sql not in seen and sql not in FRAGMENTS and not name.startswith("_"):
                seen.add(sql)
                yield f"{module.name}.{name}", sql


async def test_every_statement_prepares(database_url: str) -> None:
    connection = await asyncpg.connect(database_url, ssl=False)
    broken: dict[str, str] = {}
    names: set[str] = set()
    for name, sql in statements():
        names.add(name)
        try:
            await connection.prepare(sql)
        except asyncpg.PostgresError as error:
            broken[name] = str(error)
    await connection.close()
    assert not broken
    hot_ones = {name.rpartition(".")[2] for name in names if ".hot." in name}
    assert hot_ones == set(HOT.split())
    assert {"chatd.store.editing.SET_FIELDS", "chatd.store.sweeping.RELEASE"} <= names
