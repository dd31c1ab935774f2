"""Model providers and the model configs that users choose from."""

from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Column, Index, LargeBinary, text
from sqlmodel import Field

from chatd.store.tables.columns import Instant, Row, json, one_of, primary_id, timestamp

PROVIDERS = ("openai", "openai-compat")
"""Kinds with a wire protocol we speak. A new one is a new value here and in a migration."""


class ModelProvider(Row, table=True):
    """`api_key` is ciphertext under the key named by `api_key_key_id`.

    Deleted softly, without its key: its configs, which messages name, stay readable.
    """

    __tablename__ = "model_providers"
    __table_args__ = (
        one_of("provider", PROVIDERS, name="ck_model_providers_provider"),
        Index(
            "uq_model_providers_display_name",
            "display_name",
            unique=True,
            postgresql_where=text("deleted_at IS NULL"),
        ),
    )

    id: UUID = primary_id()
    provider: str
    display_name: str
    base_url: str = ""
    api_key: bytes | None = Field(default=None, sa_column=Column(LargeBinary, nullable=True))
    api_key_key_id: str | None = None
    enabled: bool = True
    max_concurrent_turns: int | None = None
    """Of all workers together; null: as many as there are."""
    created_at: Instant = timestamp(now=True)
    updated_at: Instant = timestamp(now=True)
    deleted_at: Instant = timestamp()


class ModelConfig(Row, table=True):
    """Deleted softly: messages name the config that made them."""

    __tablename__ = "model_configs"
    __table_args__ = (
        CheckConstraint("context_limit > 0", name="ck_model_configs_context_limit"),
        CheckConstraint(
            "compression_threshold BETWEEN 0 AND 100", name="ck_model_configs_threshold"
        ),
        Index(
            "uq_model_configs_default",
            "is_default",
            unique=True,
            postgresql_where=text("is_default AND deleted_at IS NULL"),
        ),
    )

    id: UUID = primary_id()
    provider_id: UUID = Field(foreign_key="model_providers.id", ondelete="CASCADE", index=True)
    model: str
    display_name: str = ""
    enabled: bool = True
    is_default: bool = False
    context_limit: int
    compression_threshold: int = 70
    options: dict[str, Any] = json("{}")
    created_by: UUID | None = Field(default=None, foreign_key="users.id", ondelete="SET NULL")
    created_at: Instant = timestamp(now=True)
    updated_at: Instant = timestamp(now=True)
    deleted_at: Instant = timestamp()
