"""Settings of the deployment and of each user: one row a key, none while it has its default."""

from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from chatd.core.config import DeploymentConfig, SettingKey
from chatd.core.tools import JsonObject
from chatd.store.db import Database, dump, load

_READ = "SELECT key, value FROM deployment_settings"
_READ_PERSONAL = "SELECT key, value FROM user_settings WHERE user_id = $1"

_LOCKED = text(f"{_READ} FOR UPDATE")

_WRITE = text(
    """INSERT INTO deployment_settings (key, value, updated_by)
    VALUES (:key, CAST(:value AS jsonb), :by)
    ON CONFLICT (key) DO UPDATE SET value = excluded.value, updated_by = excluded.updated_by,
        updated_at = clock_timestamp()"""
)

_WRITE_PERSONAL = """
INSERT INTO user_settings (user_id, key, value) VALUES ($1, $2, $3::jsonb)
ON CONFLICT (user_id, key) DO UPDATE SET value = excluded.value, updated_at = clock_timestamp()
"""

_DELETE_PERSONAL = "DELETE FROM user_settings WHERE user_id = $1 AND key = $2 RETURNING key"


async def read_config(db: Database) -> DeploymentConfig:
    """As it is now. A worker has the same with its turn: `LoadedTurn.deployment`."""
    rows = await db.fetch(_READ)
    return DeploymentConfig.model_validate({row["key"]: load(row["value"]) for row in rows})


async def write_setting(
    session: AsyncSession, key: SettingKey, value: Any, by: UUID
) -> DeploymentConfig:
    """Set one value, ready for JSON. Answers the config as it was before."""
    connection = await session.connection()
    rows = (await connection.execute(_LOCKED)).all()
    await connection.execute(_WRITE, {"key": key, "value": dump(value), "by": by})
    return DeploymentConfig.model_validate({row.key: row.value for row in rows})


async def read_personal(db: Database, user_id: UUID) -> JsonObject:
    """A user's settings by key: see the readers in `chatd.core.config`."""
    rows = await db.fetch(_READ_PERSONAL, user_id)
    return {row["key"]: load(row["value"]) for row in rows}


async def write_personal(db: Database, user_id: UUID, key: str, value: JsonObject | int) -> None:
    await db.fetch(_WRITE_PERSONAL, user_id, key, dump(value))


async def delete_personal(db: Database, user_id: UUID, key: str) -> bool:
    """False when it was not set."""
    return bool(await db.fetch(_DELETE_PERSONAL, user_id, key))
