"""Model providers and configs: what administrators change and what users may choose from."""

from dataclasses import dataclass, field, replace
from typing import Any, cast
from uuid import UUID

from pydantic import SecretStr
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, func, select, update
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import SelectOfScalar

from chatd.core.errors import Conflict, NotFound
from chatd.core.times import rfc3339
from chatd.store import tables
from chatd.store.db import Database, load
from chatd.store.secrets import KeyRing

View = dict[str, Any]

_KEY = {"table": "model_providers", "column": "api_key"}


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """What an administrator sets, checked. `api_key`: None leaves it, empty takes it away."""

    provider: str
    display_name: str
    base_url: str = ""
    enabled: bool = True
    api_key: SecretStr | None = None
    max_concurrent_turns: int | None = None
    """In the whole fleet; None: no limit."""


@dataclass(frozen=True, slots=True)
class ConfigSettings:
    """What an administrator sets, checked; `options` is a dumped `core.models.ModelOptions`."""

    model: str
    context_limit: int
    display_name: str = ""
    enabled: bool = True
    is_default: bool = False
    compression_threshold: int = 70
    options: dict[str, Any] = field(default_factory=dict[str, Any])


async def list_providers(session: AsyncSession) -> list[View]:
    table = tables.ModelProvider
    query = select(table).where(col(table.deleted_at).is_(None)).order_by(col(table.display_name))
    return [_provider_view(row) for row in await session.exec(query)]


async def get_provider(session: AsyncSession, provider_id: UUID) -> View:
    """Raises `NotFound`."""
    return _provider_view(await _provider(session, provider_id))


async def create_provider(session: AsyncSession, keys: KeyRing, new: ProviderSettings) -> View:
    """Raises `Conflict` when the display name is taken."""
    row = tables.ModelProvider(provider=new.provider, display_name=new.display_name)
    session.add(row)
    return await _save_provider(session, keys, row, new)


async def update_provider(
    session: AsyncSession, keys: KeyRing, provider_id: UUID, new: ProviderSettings
) -> View:
    """Raises `NotFound`, or `Conflict` when the display name is taken."""
    row = await _provider(session, provider_id)
    return await _save_provider(session, keys, row, new)


async def delete_provider(session: AsyncSession, provider_id: UUID) -> None:
    """Softly, with its model configs and without its key. Raises `NotFound`."""
    row = await _provider(session, provider_id)
    row.api_key = row.api_key_key_id = None
    row.enabled = False
    row.deleted_at = cast(Any, func.clock_timestamp())
    await _delete_configs(session, tables.ModelConfig.provider_id, provider_id)
    await session.flush()


async def list_configs(session: AsyncSession) -> list[View]:
    found = await session.exec(_configs().order_by(col(tables.ModelConfig.created_at)))
    return [_config_view(row, provider) for row, provider in found]


async def get_config(session: AsyncSession, config_id: UUID) -> View:
    """Raises `NotFound`."""
    return _config_view(*await _config(session, config_id))


async def create_config(
    session: AsyncSession, provider_id: UUID, new: ConfigSettings, by: UUID | None = None
) -> View:
    """While there is no default, an enabled config becomes it. Raises `NotFound`."""
    provider = await _provider(session, provider_id)
    if not new.is_default and not await _has_default(session):
        new = replace(new, is_default=True)
    row = tables.ModelConfig(
        provider_id=provider.id, model=new.model, context_limit=new.context_limit, created_by=by
    )
    return await _save_config(session, row, provider, new)


async def update_config(session: AsyncSession, config_id: UUID, new: ConfigSettings) -> View:
    """A config that is switched off is no longer the default. Raises `NotFound`."""
    row, provider = await _config(session, config_id)
    return await _save_config(session, row, provider, new)


async def delete_config(session: AsyncSession, config_id: UUID) -> None:
    """Softly: messages name the config that made them. Raises `NotFound`."""
    await _config(session, config_id)
    await _delete_configs(session, tables.ModelConfig.id, config_id)


async def list_choices(db: Database) -> list[View]:
    """Enabled providers with their enabled models, for users to choose from."""
    rows = await db.fetch(CHOICES)
    return [
        {
            "id": str(row["id"]),
            "provider": row["provider"],
            "display_name": row["display_name"],
            "available": row["available"],
            "unavailable_reason": None if row["available"] else "missing_api_key",
            "models": load(row["models"]) or [],
        }
        for row in rows
    ]


CHOICES = """
SELECT p.id, p.provider, p.display_name,
    p.api_key IS NOT NULL OR p.provider <> 'openai' AS available,
    (SELECT jsonb_agg(jsonb_build_object('id', m.id, 'provider', p.provider, 'model', m.model,
            'display_name', CASE m.display_name WHEN '' THEN m.model ELSE m.display_name END,
            'is_default', m.is_default, 'context_limit', m.context_limit,
            'reasoning_effort', m.options->'reasoning_effort') ORDER BY m.created_at)
        FROM model_configs m
        WHERE m.provider_id = p.id AND m.enabled AND m.deleted_at IS NULL) AS models
FROM model_providers p WHERE p.enabled AND p.deleted_at IS NULL ORDER BY p.display_name
"""


async def _provider(session: AsyncSession, provider_id: UUID) -> tables.ModelProvider:
    row = await session.get(tables.ModelProvider, provider_id, with_for_update=True)
    if row is None or row.deleted_at is not None:
        raise NotFound("Model provider not found.")
    return row


async def _save_provider(
    session: AsyncSession, keys: KeyRing, row: tables.ModelProvider, new: ProviderSettings
) -> View:
    row.provider = new.provider
    row.display_name = new.display_name
    row.base_url = new.base_url
    row.enabled = new.enabled
    row.max_concurrent_turns = new.max_concurrent_turns
    row.updated_at = cast(Any, func.clock_timestamp())
    if new.api_key is not None:
        row.api_key = row.api_key_key_id = None
        if secret := new.api_key.get_secret_value():
            row.api_key, row.api_key_key_id = keys.encrypt(secret, row_id=row.id, **_KEY)
    try:
        await session.flush()
    except IntegrityError as error:
        raise Conflict("A model provider with this display name exists.") from error
    await session.refresh(row)
    return _provider_view(row)


def _provider_view(row: tables.ModelProvider) -> View:
    return {
        "id": str(row.id),
        "provider": row.provider,
        "display_name": row.display_name,
        "base_url": row.base_url,
        "enabled": row.enabled,
        "has_api_key": row.api_key is not None,
        "max_concurrent_turns": row.max_concurrent_turns,
        "source": "database",
        "created_at": rfc3339(row.created_at),
        "updated_at": rfc3339(row.updated_at),
    }


def _configs() -> SelectOfScalar[Any]:
    config, provider = tables.ModelConfig, tables.ModelProvider
    query: Any = select(config, provider).join(provider)
    return query.where(col(config.deleted_at).is_(None))


async def _config(
    session: AsyncSession, config_id: UUID
) -> tuple[tables.ModelConfig, tables.ModelProvider]:
    query = _configs().where(col(tables.ModelConfig.id) == config_id).with_for_update()
    found = (await session.exec(query)).one_or_none()
    if found is None:
        raise NotFound("Model config not found.")
    return found[0], found[1]


async def _save_config(
    session: AsyncSession,
    row: tables.ModelConfig,
    provider: tables.ModelProvider,
    new: ConfigSettings,
) -> View:
    default = new.is_default and new.enabled
    if default and not row.is_default:
        await _clear_default(session)
    row.model = new.model
    row.display_name = new.display_name
    row.enabled = new.enabled
    row.is_default = default
    row.context_limit = new.context_limit
    row.compression_threshold = new.compression_threshold
    row.options = new.options
    row.updated_at = cast(Any, func.clock_timestamp())
    session.add(row)
    await session.flush()
    await session.refresh(row)
    return _config_view(row, provider)


async def _has_default(session: AsyncSession) -> bool:
    table = tables.ModelConfig
    query = select(table.id).where(table.is_default, col(table.deleted_at).is_(None))
    return (await session.exec(query)).first() is not None


async def _clear_default(session: AsyncSession) -> None:
    table = tables.ModelConfig
    await session.exec(update(table).where(col(table.is_default)).values(is_default=False))


async def _delete_configs(session: AsyncSession, column: Any, value: UUID) -> None:
    table = tables.ModelConfig
    await session.exec(
        update(table)
        .where(col(column) == value, col(table.deleted_at).is_(None))
        .values(enabled=False, is_default=False, deleted_at=func.clock_timestamp())
    )


def _config_view(row: tables.ModelConfig, provider: tables.ModelProvider) -> View:
    return {
        "id": str(row.id),
        "provider_id": str(row.provider_id),
        "provider": provider.provider,
        "model": row.model,
        "display_name": row.display_name,
        "enabled": row.enabled,
        "is_default": row.is_default,
        "context_limit": row.context_limit,
        "compression_threshold": row.compression_threshold,
        "options": row.options,
        "created_by": str(row.created_by) if row.created_by else None,
        "created_at": rfc3339(row.created_at),
        "updated_at": rfc3339(row.updated_at),
    }
