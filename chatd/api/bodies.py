"""What a chat client sends. Fields we do not know are ignored: frontends send more than we use."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
)

from chatd.api.fields import (
    Flag,
    Labels,
    Line,
    PlanMode,
    ServerIds,
    refusal,
    says,
)
from chatd.core.chats import MAX_TITLE, ChatPatch, NewChat, NewTurn
from chatd.core.messages import FileReferencePart, Part, TextPart
from chatd.core.models import ReasoningEffort

MAX_PARTS = 100
MAX_SYSTEM_PROMPT = 10_000
_FILE_NAME_LENGTH = 4096


def _some_text(text: str) -> str:
    if not text.strip():
        raise refusal("Text must not be empty.")
    return text


def _no_interrupt(behavior: str) -> str:
    if behavior == "interrupt":
        raise refusal("busy_behavior interrupt is not available yet.")
    return behavior


def _file_lines(part: "FileReferenceInput") -> "FileReferenceInput":
    if part.end_line < part.start_line:
        raise refusal("end_line must not be before start_line.")
    return part


class TextInput(BaseModel):
    """What the user typed."""

    type: Literal["text"]
    text: Annotated[
        str, AfterValidator(_some_text), WithJsonSchema({"type": "string", "pattern": r"\S"})
    ]

    def to_part(self) -> Part:
        return TextPart(type="text", text=self.text)


class FileReferenceInput(BaseModel):
    """Lines of a file that the user points at; the content travels with the message."""

    type: Literal["file-reference"]
    file_name: Annotated[str, StringConstraints(min_length=1, max_length=_FILE_NAME_LENGTH)]
    start_line: Line
    end_line: Line
    content: str

    def to_part(self) -> Part:
        return FileReferencePart(
            type="file-reference",
            file_name=self.file_name,
            start_line=self.start_line,
            end_line=self.end_line,
            content=self.content,
        )


Input = Annotated[
    TextInput | Annotated[FileReferenceInput, AfterValidator(_file_lines)],
    Field(discriminator="type"),
]
Content = Annotated[
    list[Input],
    Field(
        min_length=1,
        max_length=MAX_PARTS,
        description="What the user says: `text` and `file-reference` parts.",
    ),
]


BusyBehavior = Annotated[
    Literal["queue", "interrupt"],
    says("Invalid busy_behavior value."),
    AfterValidator(_no_interrupt),
]


class _Turn(BaseModel):
    content: Content
    model_config_id: UUID | None = Field(
        default=None, description="Absent: the chat's last model, else the default one."
    )
    reasoning_effort: ReasoningEffort | None = None
    mcp_server_ids: ServerIds | None = Field(
        default=None,
        description="MCP servers from this turn on. Absent or null: unchanged (in a new chat: "
        "those that are on by default). Empty: none. Servers forced on are always there.",
    )
    plan_mode: PlanMode | None = Field(
        default=None, description='"plan" or, for off, "". Absent or null: unchanged.'
    )

    def to_turn(self) -> NewTurn:
        servers = self.mcp_server_ids
        return NewTurn(
            content=[item.to_part() for item in self.content],
            model_config_id=self.model_config_id,
            reasoning_effort=self.reasoning_effort,
            mcp_server_ids=tuple(servers) if servers is not None else None,
            plan_mode=self.plan_mode,
        )


class ChatBody(_Turn):
    """A new chat and its first message."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"content": [{"type": "text", "text": "What time is it?"}]},
                {
                    "content": [{"type": "text", "text": "Plan the release."}],
                    "plan_mode": "plan",
                    "mcp_server_ids": [],
                    "labels": {"team": "support"},
                },
            ]
        }
    )

    system_prompt: Annotated[str, StringConstraints(max_length=MAX_SYSTEM_PROMPT)] | None = None
    labels: Labels | None = None
    client_type: Annotated[Literal["ui", "api"], says("Invalid client_type value.")] = "api"

    def to_chat(self) -> NewChat:
        return NewChat(
            turn=self.to_turn(),
            system_prompt=self.system_prompt or "",
            labels=self.labels or {},
            client_type=self.client_type,
        )


class MessageBody(_Turn):
    """A message for an existing chat; it queues behind a turn that is running."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"content": [{"type": "text", "text": "And in Oslo?"}]}]}
    )

    busy_behavior: BusyBehavior = "queue"


def _title(title: str) -> str:
    if not title:
        raise refusal("Title cannot be empty.")
    if len(title) > MAX_TITLE:
        raise refusal(f"Title must be at most {MAX_TITLE} characters.")
    return title


class ChatPatchBody(BaseModel):
    """Changes of a chat; absent or null leaves a field as it is."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"title": "Release plan"}]})

    title: (
        Annotated[str, StringConstraints(strip_whitespace=True), AfterValidator(_title)] | None
    ) = None
    labels: Labels | None = None
    archived: Flag | None = None
    plan_mode: PlanMode | None = None
    mcp_server_ids: ServerIds | None = None

    def to_patch(self) -> ChatPatch:
        servers = self.mcp_server_ids
        return ChatPatch(
            title=self.title,
            labels=self.labels,
            archived=self.archived,
            plan_mode=self.plan_mode,
            mcp_server_ids=tuple(servers) if servers is not None else None,
        )
