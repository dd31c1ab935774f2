"""Messages and their parts, as they are stored, streamed and sent to a model.

Parts are typed dictionaries: they go from the model's stream to JSON columns and to clients without
an object per piece. Field names are those of the public API.
"""

from dataclasses import dataclass
from typing import Literal, NotRequired, TypedDict
from uuid import UUID

Role = Literal["system", "user", "assistant", "tool"]
Visibility = Literal["user", "model", "both"]


class TextPart(TypedDict):
    type: Literal["text"]
    text: str


class ReasoningPart(TypedDict):
    type: Literal["reasoning"]
    text: str


class FileReferencePart(TypedDict):
    """Lines of a file that the user points at; the content travels with the message."""

    type: Literal["file-reference"]
    file_name: str
    start_line: int
    end_line: int
    content: str


class FilePart(TypedDict):
    """A file the user attached; its bytes are in the store, the rest is as it was then."""

    type: Literal["file"]
    file_id: str
    media_type: str
    name: str
    size: int


class ToolCallPart(TypedDict):
    """`args` is the model's own JSON text, unparsed: it may be anything at all."""

    type: Literal["tool-call"]
    tool_call_id: str
    tool_name: str
    args: str
    intent: NotRequired[str]
    """What the model says the call is for; `args` holds it too, and only that is sent back."""
    mcp_server_config_id: NotRequired[str]
    created_at: NotRequired[str]


class Media(TypedDict):
    """Base64 `data` of an image or a sound."""

    media_type: str
    data: str


class ToolResultPart(TypedDict):
    """`result` is the text the model reads; media go to it as images or sound."""

    type: Literal["tool-result"]
    tool_call_id: str
    tool_name: str
    result: str
    is_error: bool
    media: NotRequired[list[Media]]
    mcp_server_config_id: NotRequired[str]
    created_at: NotRequired[str]
    completed_at: NotRequired[str]


Part = TextPart | ReasoningPart | FileReferencePart | FilePart | ToolCallPart | ToolResultPart


class Usage(TypedDict):
    """Tokens of one model call as the provider counted them; 0 when it did not say."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    reasoning_tokens: int
    cache_creation_tokens: int
    cache_read_tokens: int


NO_USAGE = Usage(
    input_tokens=0,
    output_tokens=0,
    total_tokens=0,
    reasoning_tokens=0,
    cache_creation_tokens=0,
    cache_read_tokens=0,
)


class HistoryMessage(TypedDict):
    """One stored message as the model will read it."""

    role: Role
    content: list[Part]


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message a worker is about to commit; unique by (turn, step, position)."""

    role: Role
    content: list[Part]
    step: int
    position: int
    usage: Usage | None = None
    context_limit: int = 0
    cost_micros: int | None = None
    runtime_ms: int = 0
    provider_response_id: str = ""
    model_config_id: UUID | None = None
