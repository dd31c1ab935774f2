"""Field types that several requests share, with the messages clients know them by."""

import re
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Path
from pydantic import (
    AfterValidator,
    Field,
    StrictBool,
    StrictInt,
    StringConstraints,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

from chatd.core.turns import OnAuthRequired

SAYS = "says"
"""The error type whose text becomes the message of the whole answer."""

MAX_BIGINT = 2**63 - 1
MAX_INT = 2**31 - 1
MAX_LABELS = 50
MAX_SERVERS = 100

_LABEL_KEY = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._/-]{0,63}")
_LABEL_VALUE_BYTES = 256


def says(message: str) -> WrapValidator:
    """Whatever is wrong with the value, this is what the client reads."""

    def check(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise refusal(message) from None

    return WrapValidator(check)


def refusal(message: str) -> PydanticCustomError:
    """For validators: an error whose text becomes the answer's message."""
    return PydanticCustomError(SAYS, "{message}", {"message": message})


def _no_twice(values: list[UUID]) -> list[UUID]:
    return list(dict.fromkeys(values))


def check_labels(labels: dict[str, str]) -> dict[str, str]:
    """At most 50; keys of at most 64 bytes, values of 1 to 256 bytes."""
    if len(labels) > MAX_LABELS:
        raise refusal(f"A chat has at most {MAX_LABELS} labels.")
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key):
            raise refusal("Label keys are 1 to 64 of A-Z a-z 0-9 . _ / -, first a letter or digit.")
        if not 1 <= len(value.encode()) <= _LABEL_VALUE_BYTES:
            raise refusal(f"Label values have 1 to {_LABEL_VALUE_BYTES} bytes.")
    return labels


PlanMode = Annotated[Literal["", "plan"], says("Invalid plan_mode value.")]
OnAuth = Annotated[
    OnAuthRequired,
    says("Invalid on_auth_required value."),
    Field(
        description="When an MCP server wants you to connect to it first: `skip` goes on without"
        " its tools, `wait` lets the turn wait for you, for ten minutes at most."
    ),
]
Labels = Annotated[
    dict[str, str],
    AfterValidator(check_labels),
    Field(examples=[{"team": "support"}]),
]
ServerIds = Annotated[list[UUID], Field(max_length=MAX_SERVERS), AfterValidator(_no_twice)]
Flag = StrictBool
Line = Annotated[StrictInt, Field(ge=0, le=MAX_INT)]

Trimmed = Annotated[str, StringConstraints(strip_whitespace=True)]
ShortText = Annotated[str, StringConstraints(strip_whitespace=True, max_length=200)]
LongText = Annotated[str, StringConstraints(strip_whitespace=True, max_length=2000)]

ChatId = Annotated[UUID, Path(description="The chat's id."), says("Invalid chat ID.")]
TurnId = Annotated[UUID, Path(description="The turn's id."), says("Invalid turn ID.")]
MessageId = Annotated[int, Field(ge=1, le=MAX_BIGINT)]
MessagePath = Annotated[
    int,
    Path(ge=1, le=MAX_BIGINT, description="The message's id."),
    says("Invalid message ID."),
]
Limit = Annotated[int, Field(ge=1, le=200), says("Invalid limit parameter (1-200).")]
