"""Models: what users may choose from, and what administrators configure."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Request, Response

from chatd import audit
from chatd.api.admin_answers import Choices, ModelConfig, Provider
from chatd.api.answers import CONFLICT, FORBIDDEN, NOT_FOUND, json_answer
from chatd.api.auth import Admin, Signed, by
from chatd.api.fields import says
from chatd.api.limits import JsonRoute
from chatd.api.model_bodies import ConfigBody, ConfigPatch, ProviderBody, ProviderPatch
from chatd.api.parts import PartsDep
from chatd.audit import Target
from chatd.store import models, policy_state

router = APIRouter(tags=["models"], route_class=JsonRoute)
ADMIN = {**FORBIDDEN, **NOT_FOUND, **CONFLICT}

ProviderId = Annotated[UUID, Path(description="The id."), says("Invalid model provider ID.")]
ConfigId = Annotated[UUID, Path(description="The id."), says("Invalid model config ID.")]


@router.get("/chats/models", response_model=Choices, summary="Models to choose from")
async def list_models(actor: Signed, parts: PartsDep) -> Response:
    """Enabled providers and models; `unavailable_reason` says why one cannot be used."""
    return json_answer({"providers": await models.list_choices(parts.db)})


@router.get(
    "/chats/providers", response_model=list[Provider], responses=FORBIDDEN, summary="List providers"
)
async def list_providers(actor: Admin, parts: PartsDep) -> Response:
    async with parts.db.transaction() as session:
        return json_answer(await models.list_providers(session))


@router.post(
    "/chats/providers",
    status_code=201,
    response_model=Provider,
    responses=ADMIN,
    summary="Add a provider",
)
async def create_provider(
    request: Request, body: ProviderBody, actor: Admin, parts: PartsDep
) -> Response:
    settings = body.to_settings()
    async with parts.db.transaction() as session:
        await policy_state.bump(session)
        made = await models.create_provider(session, parts.keys, settings)
        audit.record(
            session,
            by(request, actor),
            "create",
            _provider(UUID(made["id"])),
            after=made,
            secrets=_secrets(body),
        )
    return json_answer(made, 201)


@router.get(
    "/chats/providers/{provider}",
    response_model=Provider,
    responses=ADMIN,
    summary="One provider",
)
async def get_provider(provider: ProviderId, actor: Admin, parts: PartsDep) -> Response:
    async with parts.db.transaction() as session:
        return json_answer(await models.get_provider(session, provider))


@router.patch(
    "/chats/providers/{provider}",
    response_model=Provider,
    responses=ADMIN,
    summary="Change a provider",
)
async def patch_provider(
    request: Request, provider: ProviderId, body: ProviderPatch, actor: Admin, parts: PartsDep
) -> Response:
    async with parts.db.transaction() as session:
        await policy_state.bump(session)
        before = await models.get_provider(session, provider)
        settings = body.to_settings(before)
        after = await models.update_provider(session, parts.keys, provider, settings)
        audit.record(
            session,
            by(request, actor),
            "update",
            _provider(provider),
            before=before,
            after=after,
            secrets=_secrets(body),
        )
    return json_answer(after)


@router.delete(
    "/chats/providers/{provider}", status_code=204, responses=ADMIN, summary="Delete a provider"
)
async def delete_provider(
    request: Request, provider: ProviderId, actor: Admin, parts: PartsDep
) -> Response:
    """Its model configs go with it."""
    async with parts.db.transaction() as session:
        await policy_state.bump(session)
        before = await models.get_provider(session, provider)
        await models.delete_provider(session, provider)
        audit.record(session, by(request, actor), "delete", _provider(provider), before=before)
    return Response(status_code=204)


@router.get(
    "/chats/model-configs",
    response_model=list[ModelConfig],
    responses=FORBIDDEN,
    summary="List model configs",
)
async def list_configs(actor: Admin, parts: PartsDep) -> Response:
    async with parts.db.transaction() as session:
        return json_answer(await models.list_configs(session))


@router.post(
    "/chats/model-configs",
    status_code=201,
    response_model=ModelConfig,
    responses=ADMIN,
    summary="Add a model config",
)
async def create_config(
    request: Request, body: ConfigBody, actor: Admin, parts: PartsDep
) -> Response:
    """The first enabled one becomes the default; there is one default at most."""
    settings = body.to_settings()
    async with parts.db.transaction() as session:
        await policy_state.bump(session)
        made = await models.create_config(session, body.provider_id, settings, actor.user_id)
        audit.record(session, by(request, actor), "create", _config(UUID(made["id"])), after=made)
    return json_answer(made, 201)


@router.get(
    "/chats/model-configs/{config}",
    response_model=ModelConfig,
    responses=ADMIN,
    summary="One model config",
)
async def get_config(config: ConfigId, actor: Admin, parts: PartsDep) -> Response:
    async with parts.db.transaction() as session:
        return json_answer(await models.get_config(session, config))


@router.patch(
    "/chats/model-configs/{config}",
    response_model=ModelConfig,
    responses=ADMIN,
    summary="Change a model config",
)
async def patch_config(
    request: Request, config: ConfigId, body: ConfigPatch, actor: Admin, parts: PartsDep
) -> Response:
    """A config that is switched off is no longer the default."""
    async with parts.db.transaction() as session:
        await policy_state.bump(session)
        before = await models.get_config(session, config)
        after = await models.update_config(session, config, body.to_settings(before))
        audit.record(
            session, by(request, actor), "update", _config(config), before=before, after=after
        )
    return json_answer(after)


@router.delete(
    "/chats/model-configs/{config}",
    status_code=204,
    responses=ADMIN,
    summary="Delete a model config",
)
async def delete_config(
    request: Request, config: ConfigId, actor: Admin, parts: PartsDep
) -> Response:
    """Chats that used it go on with the default one."""
    async with parts.db.transaction() as session:
        await policy_state.bump(session)
        before = await models.get_config(session, config)
        await models.delete_config(session, config)
        audit.record(session, by(request, actor), "delete", _config(config), before=before)
    return Response(status_code=204)


def _provider(provider_id: UUID) -> Target:
    return Target("model_provider", provider_id)


def _config(config_id: UUID) -> Target:
    return Target("model_config", config_id)


def _secrets(body: ProviderBody | ProviderPatch) -> tuple[str, ...]:
    return ("api_key",) if body.api_key is not None else ()
