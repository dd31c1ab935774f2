"""What administrators set for everybody and users for themselves."""

from typing import Any
from uuid import UUID

from sqlmodel import Field

from chatd.store.tables.columns import Instant, Row, json, timestamp


class DeploymentSetting(Row, table=True):
    """One value of `chatd.core.config`; a key without a row has its default."""

    __tablename__ = "deployment_settings"

    key: str = Field(primary_key=True)
    value: dict[str, Any] = json("null")
    updated_by: UUID | None = Field(default=None, foreign_key="users.id", ondelete="SET NULL")
    updated_at: Instant = timestamp(now=True)


class UserSetting(Row, table=True):
    """One value of one user."""

    __tablename__ = "user_settings"

    user_id: UUID = Field(foreign_key="users.id", ondelete="CASCADE", primary_key=True)
    key: str = Field(primary_key=True)
    value: dict[str, Any] = json("null")
    updated_at: Instant = timestamp(now=True)
