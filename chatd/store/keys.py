"""What is encrypted and with which keys; replacing a value's ciphertext if it is still the same."""

import hashlib
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text

from chatd.core.errors import ChatdError, Unavailable
from chatd.core.health import LOST_S
from chatd.store.db import Database, load
from chatd.store.processes import AT_WORK

BATCH = 100

LOCK = int.from_bytes(hashlib.sha256(b"chatd key rotation").digest()[:8], signed=True)


@dataclass(frozen=True, slots=True)
class SecretColumn:
    """A column of ciphertext; the id of its key is in `<column>_key_id`, its row's in `id`."""

    table: str
    column: str

    def __str__(self) -> str:
        return f"{self.table}.{self.column}"


SECRET_COLUMNS: tuple[SecretColumn, ...] = (
    SecretColumn("mcp_server_configs", "oauth2_client_secret"),
    SecretColumn("mcp_server_configs", "api_key_value"),
    SecretColumn("mcp_server_configs", "custom_headers"),
    SecretColumn("mcp_server_configs", "signing_secret"),
    SecretColumn("model_providers", "api_key"),
    SecretColumn("oauth_tokens", "access_token"),
    SecretColumn("oauth_tokens", "refresh_token"),
    SecretColumn("oauth_clients", "secret"),
    SecretColumn("oauth_states", "data"),
    SecretColumn("sessions", "id_token"),
)
"""Every one there is."""


@dataclass(frozen=True, slots=True)
class Sealed:
    row_id: UUID
    ciphertext: bytes
    key_id: str | None


@dataclass(frozen=True, slots=True)
class KeyUse:
    """How many values of a column are encrypted with a key."""

    column: SecretColumn
    key_id: str | None
    values: int


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A key that some process has had."""

    id: str
    fingerprint: str
    first_seen_at: datetime
    rotation_started_at: datetime | None
    rotation_ended_at: datetime | None
    rotated: int


_MIGRATED = "SELECT to_regclass('encryption_keys') IS NOT NULL AS migrated"

_ENCRYPTS = " OR ".join(
    f"EXISTS (SELECT 1 FROM {each.table} "
    f"WHERE {each.column} IS NOT NULL AND {each.column}_key_id = k.id)"
    for each in SECRET_COLUMNS
)

_REGISTER = f"""
INSERT INTO encryption_keys AS k (id, fingerprint)
SELECT * FROM unnest($1::text[], $2::text[]) ORDER BY 1
ON CONFLICT (id) DO UPDATE SET fingerprint = excluded.fingerprint,
    first_seen_at = clock_timestamp(), rotation_started_at = NULL, rotation_ended_at = NULL,
    rotated = 0, progress = '{{}}', rotated_by = NULL
WHERE k.fingerprint <> excluded.fingerprint
    AND k.first_seen_at < clock_timestamp() - make_interval(secs => {LOST_S})
    AND NOT EXISTS (SELECT 1 FROM processes WHERE {AT_WORK} AND key_ids ? k.id)
    AND NOT ({_ENCRYPTS})
"""
"""Another key takes a known id over once it stands for nothing. One that was noted just now may
belong to a process that starts: it has not beaten yet."""

_DIFFERENT = """
SELECT ours.id, k.id IS NOT NULL AS known
FROM unnest($1::text[], $2::text[]) AS ours (id, fingerprint)
    LEFT JOIN encryption_keys k ON k.id = ours.id
WHERE k.fingerprint IS DISTINCT FROM ours.fingerprint
"""

_USES = " UNION ALL ".join(
    f"SELECT {number} AS number, {each.column}_key_id AS key_id, count(*) AS values "
    f"FROM {each.table} WHERE {each.column} IS NOT NULL GROUP BY {each.column}_key_id"
    for number, each in enumerate(SECRET_COLUMNS)
)

_BEGIN = """
UPDATE encryption_keys SET rotation_ended_at = NULL,
    rotation_started_at = CASE WHEN rotation_ended_at IS NULL
        THEN coalesce(rotation_started_at, clock_timestamp()) ELSE clock_timestamp() END,
    rotated = CASE WHEN rotation_ended_at IS NULL THEN rotated ELSE 0 END
WHERE id = $1 RETURNING progress
"""

_ADVANCE = """
UPDATE encryption_keys SET rotated = rotated + $4,
    progress = progress || jsonb_build_object($2::text, $3::text)
WHERE id = $1
"""

_END = """
UPDATE encryption_keys SET rotation_ended_at = clock_timestamp(), progress = '{}' WHERE id = $1
"""


class OtherKey(ChatdError):
    """Another key than ours is known under the same id."""

    code = "other_encryption_key"

    def __init__(self, key_ids: Collection[str]) -> None:
        super().__init__(
            f"CHATD_ENCRYPTION_KEYS: other processes have another key under the id "
            f"{', '.join(sorted(key_ids))}.",
            detail="What one writes, the others could not read. Use their key, or a new id.",
        )


async def find_other_keys(db: Database, fingerprints: Mapping[str, str]) -> frozenset[str]:
    """The ids under which others have another key.

    Raises `Unavailable` also when there are no tables yet.
    """
    return frozenset(row["id"] for row in await _different(db, fingerprints) if row["known"])


async def register_keys(db: Database, fingerprints: Mapping[str, str]) -> frozenset[str]:
    """The same, once these keys are noted: before anything is encrypted with them."""
    if not await _different(db, fingerprints):
        return frozenset()
    await db.fetch(_REGISTER, list(fingerprints), list(fingerprints.values()))
    return await find_other_keys(db, fingerprints)


async def _different(db: Database, fingerprints: Mapping[str, str]) -> Sequence[Any]:
    row = await db.fetch_one(_MIGRATED)
    if row is None or not row["migrated"]:
        raise Unavailable("The database has not been migrated.")
    return await db.fetch(_DIFFERENT, list(fingerprints), list(fingerprints.values()))


async def list_keys(db: Database) -> list[KnownKey]:
    rows = await db.fetch(
        """SELECT id, fingerprint, first_seen_at, rotation_started_at, rotation_ended_at, rotated
        FROM encryption_keys ORDER BY first_seen_at, id"""
    )
    return [KnownKey(**row) for row in rows]


async def list_uses(db: Database) -> list[KeyUse]:
    """By column and key."""
    rows = await db.fetch(f"{_USES} ORDER BY number, key_id")
    return [
        KeyUse(SECRET_COLUMNS[int(row["number"])], row["key_id"], row["values"]) for row in rows
    ]


@asynccontextmanager
async def alone(db: Database) -> AsyncGenerator[bool]:
    """Whether nobody else rotates keys; nobody will until the end of the block."""
    async with db.statements() as connection:
        # It is idle for as long as the rotation takes.
        await connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        found = await connection.execute(
            text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": LOCK}
        )
        yield bool(found.scalar_one())


async def begin_rotation(db: Database, key_id: str) -> dict[str, UUID]:
    """The last row done of each column, of a rotation to this key that was stopped."""
    row = await db.fetch_one(_BEGIN, key_id)
    progress: dict[str, Any] = load(row["progress"]) if row is not None else {}
    return {column: UUID(last) for column, last in progress.items()}


async def advance_rotation(
    db: Database, key_id: str, column: SecretColumn, last: UUID, rotated: int
) -> None:
    await db.fetch(_ADVANCE, key_id, str(column), str(last), rotated)


async def end_rotation(db: Database, key_id: str) -> None:
    await db.fetch(_END, key_id)


async def read_others(
    db: Database, column: SecretColumn, key_id: str, after: UUID | None
) -> list[Sealed]:
    """A batch of the values that another key encrypted, by row id."""
    name = column.column
    rows = await db.fetch(
        f"""SELECT id, {name} AS ciphertext, {name}_key_id AS key_id FROM {column.table}
        WHERE {name} IS NOT NULL AND {name}_key_id IS DISTINCT FROM $1
            AND ($2::uuid IS NULL OR id > $2) ORDER BY id LIMIT {BATCH}""",
        key_id,
        after,
    )
    return [Sealed(row["id"], row["ciphertext"], row["key_id"]) for row in rows]


async def replace_sealed(
    db: Database, column: SecretColumn, old: Sealed, ciphertext: bytes, key_id: str
) -> bool:
    """False when the value was changed meanwhile: it stays as it is.

    Nothing else of the row moves, not even its version: what it says is the same.
    """
    name = column.column
    rows = await db.fetch(
        f"""UPDATE {column.table} SET {name} = $3, {name}_key_id = $4
        WHERE id = $1 AND {name} = $2 RETURNING id""",
        old.row_id,
        old.ciphertext,
        ciphertext,
        key_id,
    )
    return bool(rows)
