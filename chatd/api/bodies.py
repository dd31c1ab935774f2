"""What a chat client sends. Fields we do not know are ignored: frontends send more than we use."""

from dataclasses import replace
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictInt,
    StringConstraints,
    WithJsonSchema,
)

from chatd.api.fields import (
    MAX_INT,
    Flag,
    Labels,
    Line,
    MessageId,
    OnAuth,
    PlanMode,
    ServerIds,
    refusal,
    says,
)
from chatd.core.chats import MAX_TITLE, ChatPatch, NewChat, NewTurn
from chatd.core.messages import FilePart, FileReferencePart, Part, TextPart
from chatd.core.models import ReasoningEffort

MAX_PARTS = 100
MAX_SYSTEM_PROMPT = 10_000
MAX_TOOLS = 250
_FILE_NAME_LENGTH = 4096


def _some_text(text: str) -> str:
    if not text.strip():
        raise refusal("Text must not be empty.")
    return text


def _distinct_names(tools: "list[DynamicTool]") -> "list[DynamicTool]":
    names = [tool.name for tool in tools]
    if len(set(names)) < len(names):
        raise refusal("The names of dynamic tools must be unique.")
    return tools


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


class FileInput(BaseModel):
    """A file that was uploaded before: `POST /chats/files`."""

    type: Literal["file"]
    file_id: UUID

    def to_part(self) -> Part:
        """What else is known of it is added once it is found."""
        file_id = str(self.file_id)
        return FilePart(type="file", file_id=file_id, media_type="", name="", size=0)


Input = Annotated[
    TextInput | FileInput | Annotated[FileReferenceInput, AfterValidator(_file_lines)],
    Field(discriminator="type"),
]
Content = Annotated[
    list[Input],
    Field(
        min_length=1,
        max_length=MAX_PARTS,
        description="What the user says: `text`, `file` and `file-reference` parts.",
    ),
]


BusyBehavior = Annotated[
    Literal["queue", "interrupt"],
    says("Invalid busy_behavior value."),
    Field(
        description="While a turn is active: `queue` waits for its end, `interrupt` stops it. Both "
        "join the end of the queue."
    ),
]


class _Settings(BaseModel):
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
    on_auth_required: OnAuth = "skip"

    def to_turn(self) -> NewTurn:
        """Without content: that is for those who have some."""
        servers = self.mcp_server_ids
        return NewTurn(
            content=[],
            model_config_id=self.model_config_id,
            reasoning_effort=self.reasoning_effort,
            mcp_server_ids=tuple(servers) if servers is not None else None,
            plan_mode=self.plan_mode,
            on_auth_required=self.on_auth_required,
        )


class _Turn(_Settings):
    content: Content

    def to_turn(self) -> NewTurn:
        return replace(super().to_turn(), content=[item.to_part() for item in self.content])


class DynamicTool(BaseModel):
    """A tool that the client runs itself when the model calls it."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    description: str = ""
    input_schema: dict[str, Any] = Field(
        default_factory=lambda: {"type": "object", "properties": {}},
        description="JSON Schema of its arguments.",
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
    unsafe_dynamic_tools: (
        Annotated[list[DynamicTool], Field(max_length=MAX_TOOLS), AfterValidator(_distinct_names)]
        | None
    ) = Field(
        default=None,
        description="Tools that you run yourself: a turn that calls one waits for its result.",
    )

    def to_chat(self) -> NewChat:
        return NewChat(
            turn=self.to_turn(),
            system_prompt=self.system_prompt or "",
            labels=self.labels or {},
            client_type=self.client_type,
            dynamic_tools=[tool.model_dump() for tool in self.unsafe_dynamic_tools or ()],
        )


class MessageBody(_Turn):
    """A message for an existing chat; it queues behind a turn that is running."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"content": [{"type": "text", "text": "And in Oslo?"}]}]}
    )

    busy_behavior: BusyBehavior = "queue"


class EditBody(_Turn):
    """What a message says from now on."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"content": [{"type": "text", "text": "In Bergen?"}]}]}
    )


class RegenerateBody(_Settings):
    """Other settings than those the message was sent with."""

    model_config = ConfigDict(json_schema_extra={"examples": [{}, {"plan_mode": "plan"}]})


class InterruptBody(BaseModel):
    """Which turn to stop."""

    model_config = ConfigDict(json_schema_extra={"examples": [{}]})

    turn_id: UUID | None = Field(
        default=None, description="Only if this one is the active turn. Absent: whichever is."
    )


class ReadBody(BaseModel):
    """How far the user has read."""

    model_config = ConfigDict(json_schema_extra={"examples": [{}, {"message_id": 7}]})

    message_id: MessageId | None = Field(
        default=None, description="The last message read. Absent: the newest one."
    )


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
    model_config_id: UUID | None = Field(
        default=None, description="For messages from now on that name none."
    )
    reasoning_effort: ReasoningEffort | None = None
    plan_mode: PlanMode | None = None
    mcp_server_ids: ServerIds | None = None
    pin_order: Annotated[StrictInt, Field(ge=-MAX_INT, le=MAX_INT)] | None = Field(
        default=None,
        description="0 unpins. Anything else pins a chat at the end, or moves a pinned one there.",
    )

    def to_patch(self) -> ChatPatch:
        servers = self.mcp_server_ids
        return ChatPatch(
            title=self.title,
            labels=self.labels,
            archived=self.archived,
            model_config_id=self.model_config_id,
            reasoning_effort=self.reasoning_effort,
            plan_mode=self.plan_mode,
            mcp_server_ids=tuple(servers) if servers is not None else None,
            pin_order=self.pin_order,
        )
