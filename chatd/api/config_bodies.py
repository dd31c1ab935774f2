"""What is sent and answered about settings: the same fields both ways."""

from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, BaseModel, Field, StrictInt

from chatd.api.admin import AdminBody
from chatd.api.fields import Flag, refusal
from chatd.api.model_bodies import Threshold
from chatd.core.config import MAX_DAYS, MAX_LIMIT_MICROS, MAX_PROMPT_BYTES, Period


def _prompt(text: str) -> str:
    if len(text.encode()) > MAX_PROMPT_BYTES:
        raise refusal(f"A prompt has at most {MAX_PROMPT_BYTES // 1024} KiB.")
    return text


Prompt = Annotated[str, AfterValidator(_prompt)]
Days = Annotated[StrictInt, Field(ge=0, le=MAX_DAYS)]


class SystemPromptBody(AdminBody):
    system_prompt: Prompt
    include_default_system_prompt: Flag = True


class SystemPromptAnswer(SystemPromptBody):
    default_system_prompt: str = Field(description="What stands before it when included.")


class PlanInstructionsBody(AdminBody):
    """Stands in the prompt of turns in plan mode, before what users and servers say."""

    plan_mode_instructions: Prompt


class UserPromptBody(AdminBody):
    """Stands in the prompt of all your chats, between `<user-instructions>`."""

    custom_prompt: Prompt


class AutoArchiveBody(AdminBody):
    auto_archive_days: Days = Field(description="Untouched for so long; 0: never.")


class RetentionBody(AdminBody):
    retention_days: Days = Field(description="From archiving to deletion; 0: kept.")


class OverridesBody(AdminBody):
    """Model configs for special work; null or absent: the chat's own."""

    title: UUID | None = None
    explore: UUID | None = None
    general: UUID | None = None


class LimitsBody(AdminBody):
    """The default of all users without a limit of their own. Periods are in UTC."""

    enabled: Flag
    default_limit_micros: Annotated[StrictInt, Field(ge=0, le=MAX_LIMIT_MICROS)] = 0
    period: Period = "month"


class ThresholdBody(AdminBody):
    threshold_percent: Threshold


class UserThreshold(ThresholdBody):
    model_config_id: UUID


class UserThresholds(BaseModel):
    thresholds: list[UserThreshold]
