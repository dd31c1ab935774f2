"""What `chatd dev` puts into the database: two users, a model, and the demo MCP server."""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from pydantic import SecretStr
from sqlmodel.ext.asyncio.session import AsyncSession

from chatd.api.model_bodies import ConfigBody, ConfigPatch, ProviderBody, ProviderPatch
from chatd.api.server_bodies import ServerBody, ServerPatch
from chatd.core.errors import NotFound
from chatd.store import models, policy_state, servers, tokens, users
from chatd.store.db import Database
from chatd.store.models import View
from chatd.store.secrets import KeyRing
from chatd.store.users import Role

USERS: Mapping[str, Role] = {"admin": "admin", "member": "member"}
DEMO_SLUG = "demo"
CONTEXT_LIMIT = 128_000


@dataclass(frozen=True, slots=True)
class Model:
    """A provider of ours, by its display name, and the one model to use of it."""

    provider_name: str
    name: str
    base_url: str = ""
    api_key: SecretStr | None = None

    @property
    def kind(self) -> str:
        return "openai-compat" if self.base_url else "openai"


SCRIPTED, REAL = "Scripted model", "OPENAI_BASE_URL"
_PROVIDERS = (SCRIPTED, REAL)


def scripted_model(url: str) -> Model:
    return Model(SCRIPTED, "scripted-model", base_url=url)


def real_model(name: str, base_url: str, api_key: SecretStr | None) -> Model:
    return Model(REAL, name, base_url=base_url, api_key=api_key)


async def prepare(db: Database, keys: KeyRing, model: Model, demo_url: str) -> None:
    """Create what is missing and correct addresses; what an administrator changed stays."""
    async with db.transaction() as session:
        await policy_state.bump(session)
        await _use_model(session, keys, model)
        await _use_demo_server(session, keys, demo_url)


async def working_tokens(db: Database, known: Mapping[str, str]) -> dict[str, str]:
    """A token for each of our users: the known one while it lets them in, else a new one."""
    working = dict[str, str]()
    for username, role in USERS.items():
        token = known.get(username, "")
        if not token or await tokens.authenticate(db, tokens.sha256(token)) is None:
            token = tokens.new_token()
            await _give_token(db, username, role, token)
        working[username] = token
    return working


async def _give_token(db: Database, username: str, role: Role, token: str) -> None:
    async with db.transaction() as session:
        try:
            user = await users.get_user(session, username)
        except NotFound:
            user = await users.create_user(session, username, role=role)
        await tokens.create_token(session, user.id, token, name="chatd dev")


async def _use_model(session: AsyncSession, keys: KeyRing, model: Model) -> None:
    """It becomes the default, unless an administrator chose one that is not ours."""
    known = {view["display_name"]: view for view in await models.list_providers(session)}
    ours = {known[name]["id"] for name in _PROVIDERS if name in known}
    for name in _PROVIDERS:
        # There is nothing behind its address now.
        if name in known and name != model.provider_name:
            off = ProviderPatch(enabled=False).to_settings(known[name])
            await models.update_provider(session, keys, UUID(known[name]["id"]), off)
    provider = await _use_provider(session, keys, model, known.get(model.provider_name))
    configs = await models.list_configs(session)
    free = not any(view["is_default"] and view["provider_id"] not in ours for view in configs)
    same = (view for view in configs if view["provider_id"] == provider["id"])
    config = next((view for view in same if view["model"] == model.name), None)
    if config is None:
        body = ConfigBody(
            provider_id=UUID(provider["id"]),
            model=model.name,
            context_limit=CONTEXT_LIMIT,
            is_default=free,
        )
        await models.create_config(session, UUID(provider["id"]), body.to_settings())
    elif free and config["enabled"] and not config["is_default"]:
        default = ConfigPatch(is_default=True).to_settings(config)
        await models.update_config(session, UUID(config["id"]), default)


async def _use_provider(
    session: AsyncSession, keys: KeyRing, model: Model, known: View | None
) -> View:
    if known is None:
        body = ProviderBody.model_validate(
            {
                "provider": model.kind,
                "display_name": model.provider_name,
                "base_url": model.base_url,
                "api_key": model.api_key,
            }
        )
        return await models.create_provider(session, keys, body.to_settings())
    changes = ProviderPatch.model_validate(
        {
            "provider": model.kind,
            "base_url": model.base_url,
            "enabled": True,
            "api_key": model.api_key or SecretStr(""),
        }
    )
    return await models.update_provider(
        session, keys, UUID(known["id"]), changes.to_settings(known)
    )


async def _use_demo_server(session: AsyncSession, keys: KeyRing, url: str) -> None:
    for view in await servers.list_servers(session):
        if view["slug"] == DEMO_SLUG:
            if view["url"] != url:
                changes = ServerPatch(url=url).to_settings(view)
                await servers.update_server(session, keys, UUID(view["id"]), changes)
            return
    demo = ServerBody(
        display_name="Demo",
        slug=DEMO_SLUG,
        description="Tools to try chatd with.",
        transport="streamable_http",
        url=url,
        auth_type="none",
        availability="default_on",
        enabled=True,
        # They are ours, and say truly which of them may be repeated.
        trust_annotations=True,
    )
    await servers.create_server(session, keys, demo.to_settings())
