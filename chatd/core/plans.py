"""Plans: what a turn in plan mode proposes, and what is said when its user approves it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from chatd.core.messages import FileReferencePart, Part, TextPart

MAX_PLAN_BYTES = 32 * 1024
MEDIA_TYPE = "text/markdown"


@dataclass(frozen=True, slots=True)
class Plan:
    """`approved_at` is None until a turn carries it out that its user has not taken back."""

    file_id: UUID
    name: str
    content: str
    created_at: datetime
    approved_at: datetime | None


def approval(plan: Plan, more: Sequence[Part]) -> list[Part]:
    """The message that approves it, with its text: the history may hold the plan no more."""
    return [
        TextPart(
            type="text",
            text=f"I approve the plan {plan.name} below. Plan mode is off now: carry it out.",
        ),
        FileReferencePart(
            type="file-reference",
            file_name=plan.name,
            start_line=1,
            end_line=max(1, len(plan.content.splitlines())),
            content=plan.content,
        ),
        *more,
    ]
