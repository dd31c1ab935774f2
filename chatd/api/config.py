"""Settings: the deployment's for administrators, everybody's own for themselves."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Request, Response

from chatd import audit
from chatd.api.answers import FORBIDDEN, NOT_FOUND, json_answer
from chatd.api.auth import Admin, Signed, by
from chatd.api.config_bodies import (
    AutoArchiveBody,
    LimitsBody,
    OverridesBody,
    PlanInstructionsBody,
    RetentionBody,
    SystemPromptAnswer,
    SystemPromptBody,
    ThresholdBody,
    UserPromptBody,
    UserThreshold,
    UserThresholds,
)
from chatd.api.fields import says
from chatd.api.limits import JsonRoute
from chatd.api.parts import Parts, PartsDep
from chatd.audit import Target
from chatd.core.chats import Actor
from chatd.core.config import (
    DEFAULT_SYSTEM_PROMPT,
    USER_PROMPT,
    ModelOverrides,
    PlanInstructions,
    SettingKey,
    SystemPrompt,
    UsageLimits,
    threshold_key,
    thresholds,
    user_prompt,
)
from chatd.core.errors import BadRequest, NotFound
from chatd.store import models
from chatd.store.config import (
    delete_personal,
    read_config,
    read_personal,
    write_personal,
    write_setting,
)

router = APIRouter(prefix="/chats/config", tags=["config"], route_class=JsonRoute)

ConfigId = Annotated[
    UUID, Path(description="The model config's id."), says("Invalid model config ID.")
]


# --- the deployment's


@router.get(
    "/system-prompt",
    response_model=SystemPromptAnswer,
    responses=FORBIDDEN,
    summary="The system prompt of all chats",
)
async def get_system_prompt(actor: Admin, parts: PartsDep) -> Response:
    return json_answer(_shown_prompt((await read_config(parts.db)).system_prompt))


@router.put(
    "/system-prompt",
    response_model=SystemPromptAnswer,
    responses=FORBIDDEN,
    summary="Set the system prompt of all chats",
)
async def put_system_prompt(
    request: Request, body: SystemPromptBody, actor: Admin, parts: PartsDep
) -> Response:
    """It counts from each chat's next turn on."""
    prompt = SystemPrompt(
        text=body.system_prompt, include_default=body.include_default_system_prompt
    )
    await write(request, parts, actor, "system_prompt", prompt.model_dump())
    return json_answer(_shown_prompt(prompt))


@router.get(
    "/plan-mode-instructions",
    response_model=PlanInstructionsBody,
    responses=FORBIDDEN,
    summary="The instructions of plan mode",
)
async def get_plan_instructions(actor: Admin, parts: PartsDep) -> Response:
    text = (await read_config(parts.db)).plan_mode_instructions.text
    return json_answer({"plan_mode_instructions": text})


@router.put(
    "/plan-mode-instructions",
    response_model=PlanInstructionsBody,
    responses=FORBIDDEN,
    summary="Set the instructions of plan mode",
)
async def put_plan_instructions(
    request: Request, body: PlanInstructionsBody, actor: Admin, parts: PartsDep
) -> Response:
    """An empty text takes them away. They count from each chat's next turn on."""
    value = PlanInstructions(text=body.plan_mode_instructions).model_dump()
    await write(request, parts, actor, "plan_mode_instructions", value)
    return json_answer(body.model_dump())


@router.get(
    "/auto-archive-days",
    response_model=AutoArchiveBody,
    responses=FORBIDDEN,
    summary="When untouched chats are archived",
)
async def get_auto_archive_days(actor: Admin, parts: PartsDep) -> Response:
    return json_answer({"auto_archive_days": (await read_config(parts.db)).auto_archive_days})


@router.put(
    "/auto-archive-days",
    response_model=AutoArchiveBody,
    responses=FORBIDDEN,
    summary="Set when untouched chats are archived",
)
async def put_auto_archive_days(
    request: Request, body: AutoArchiveBody, actor: Admin, parts: PartsDep
) -> Response:
    await write(request, parts, actor, "auto_archive_days", body.auto_archive_days)
    return json_answer(body.model_dump())


@router.get(
    "/retention-days",
    response_model=RetentionBody,
    responses=FORBIDDEN,
    summary="When archived chats are deleted",
)
async def get_retention_days(actor: Admin, parts: PartsDep) -> Response:
    return json_answer({"retention_days": (await read_config(parts.db)).retention_days})


@router.put(
    "/retention-days",
    response_model=RetentionBody,
    responses=FORBIDDEN,
    summary="Set when archived chats are deleted",
)
async def put_retention_days(
    request: Request, body: RetentionBody, actor: Admin, parts: PartsDep
) -> Response:
    await write(request, parts, actor, "retention_days", body.retention_days)
    return json_answer(body.model_dump())


@router.get(
    "/model-overrides",
    response_model=OverridesBody,
    responses=FORBIDDEN,
    summary="Models for special work",
)
async def get_model_overrides(actor: Admin, parts: PartsDep) -> Response:
    return json_answer((await read_config(parts.db)).model_overrides.model_dump(mode="json"))


@router.put(
    "/model-overrides",
    response_model=OverridesBody,
    responses=FORBIDDEN,
    summary="Set the models for special work",
)
async def put_model_overrides(
    request: Request, body: OverridesBody, actor: Admin, parts: PartsDep
) -> Response:
    overrides = ModelOverrides(**body.given()).model_dump(mode="json")
    for config_id in body.given().values():
        await _require_usable(parts, config_id)
    await write(request, parts, actor, "model_overrides", overrides)
    return json_answer(overrides)


@router.get(
    "/usage-limits",
    response_model=LimitsBody,
    responses=FORBIDDEN,
    summary="What users may spend",
)
async def get_usage_limits(actor: Admin, parts: PartsDep) -> Response:
    return json_answer((await read_config(parts.db)).usage_limits.model_dump())


@router.put(
    "/usage-limits",
    response_model=LimitsBody,
    responses=FORBIDDEN,
    summary="Set what users may spend",
)
async def put_usage_limits(
    request: Request, body: LimitsBody, actor: Admin, parts: PartsDep
) -> Response:
    limits = UsageLimits(**body.model_dump()).model_dump()
    await write(request, parts, actor, "usage_limits", limits)
    parts.limits.forget()
    return json_answer(limits)


# --- one's own


@router.get("/user-prompt", response_model=UserPromptBody, summary="Your own instructions")
async def get_user_prompt(actor: Signed, parts: PartsDep) -> Response:
    personal = await read_personal(parts.db, actor.user_id)
    return json_answer({"custom_prompt": user_prompt(personal)})


@router.put("/user-prompt", response_model=UserPromptBody, summary="Set your own instructions")
async def put_user_prompt(body: UserPromptBody, actor: Signed, parts: PartsDep) -> Response:
    """An empty text takes them away."""
    value = {"text": body.custom_prompt}
    await write_personal(parts.db, actor.user_id, USER_PROMPT, value)
    return json_answer(body.model_dump())


@router.get(
    "/user-compaction-thresholds",
    response_model=UserThresholds,
    summary="Your compaction thresholds",
)
async def list_thresholds(actor: Signed, parts: PartsDep) -> Response:
    """Only those you have set; other models use what their config says."""
    own = thresholds(await read_personal(parts.db, actor.user_id))
    return json_answer({"thresholds": [_threshold(*item) for item in own.items()]})


@router.put(
    "/user-compaction-thresholds/{config}",
    response_model=UserThreshold,
    responses=NOT_FOUND,
    summary="Set your compaction threshold for a model",
)
async def put_threshold(
    config: ConfigId, body: ThresholdBody, actor: Signed, parts: PartsDep
) -> Response:
    async with parts.db.transaction() as session:
        await models.get_config(session, config)
    key, percent = threshold_key(config), body.threshold_percent
    await write_personal(parts.db, actor.user_id, key, percent)
    return json_answer(_threshold(str(config), percent))


@router.delete(
    "/user-compaction-thresholds/{config}",
    status_code=204,
    responses=NOT_FOUND,
    summary="Use the model's own compaction threshold again",
)
async def delete_threshold(config: ConfigId, actor: Signed, parts: PartsDep) -> Response:
    if not await delete_personal(parts.db, actor.user_id, threshold_key(config)):
        raise NotFound("You have set no threshold for this model.")
    return Response(status_code=204)


async def write(request: Request, parts: Parts, actor: Actor, key: SettingKey, value: Any) -> None:
    """Audited as the fields of the setting that changed."""
    async with parts.db.transaction() as session:
        old = await write_setting(session, key, value, actor.user_id)
        before = old.model_dump(mode="json", include={key})
        target = Target("deployment_setting", key)
        audit.record(
            session, by(request, actor), "update", target, before=before, after={key: value}
        )


async def _require_usable(parts: Parts, config_id: UUID) -> None:
    """Raises `BadRequest`."""
    try:
        async with parts.db.transaction() as session:
            found = await models.get_config(session, config_id)
    except NotFound:
        found = {"enabled": False}
    if not found["enabled"]:
        raise BadRequest(f"Model config {config_id} does not exist or is disabled.")


def _shown_prompt(prompt: SystemPrompt) -> dict[str, Any]:
    return {
        "system_prompt": prompt.text,
        "include_default_system_prompt": prompt.include_default,
        "default_system_prompt": DEFAULT_SYSTEM_PROMPT,
    }


def _threshold(model_config_id: str, percent: int) -> dict[str, Any]:
    return {"model_config_id": model_config_id, "threshold_percent": percent}
