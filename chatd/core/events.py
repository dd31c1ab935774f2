"""The closed set of events a client of a chat sees."""

from typing import Literal

EventType = Literal[
    "message_part",
    "message",
    "status",
    "error",
    "retry",
    "queue_update",
    "action_required",
    "turn",
    "notice",
    "preview_reset",
    "history_reset",
]
