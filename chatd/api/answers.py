"""What the API answers, for its documentation; routes give ready dictionaries to `json_answer`."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from chatd.core.errors import ErrorKind
from chatd.core.oauth import ReauthReason
from chatd.core.reasons import Reason
from chatd.core.turns import TurnStatus

Json = dict[str, Any]


def json_answer(value: Any, status: int = 200) -> Response:
    """The fast way out: these values are ready for JSON, nothing is validated again."""
    return Response(orjson.dumps(value), status, media_type="application/json")


class FieldProblem(BaseModel):
    field: str
    detail: str


class Problem(BaseModel):
    """Why a request was refused or failed."""

    message: str = Field(examples=["The request has invalid values."])
    detail: str = ""
    validations: list[FieldProblem] = Field(
        examples=[[{"field": "content", "detail": "Field required"}]]
    )
    code: str = Field(description="Stable, for programs.", examples=["bad_request"])
    request_id: str = Field(description="Also in the `X-Request-Id` header and in every log line.")


class TurnProblem(BaseModel):
    kind: ErrorKind
    message: str
    detail: str
    provider: str
    retryable: bool
    status_code: int


class File(BaseModel):
    id: UUID
    name: str
    media_type: str
    size: int
    created_at: datetime


class Chat(BaseModel):
    id: UUID
    owner_id: UUID
    parent_chat_id: UUID | None
    root_chat_id: UUID | None
    last_model_config_id: UUID | None
    last_reasoning_effort: str | None
    title: str
    status: Literal["waiting", "pending", "running", "interrupting", "requires_action", "error"]
    plan_mode: Literal["plan"] | None
    client_type: Literal["ui", "api"]
    last_error: TurnProblem | None
    created_at: datetime
    updated_at: datetime
    archived: bool
    pin_order: int
    mcp_server_ids: list[UUID]
    labels: dict[str, str]
    files: list[File]
    has_unread: bool
    warnings: list[str]
    children: list[Json]


class TokenUsage(BaseModel):
    input_tokens: int
    output_tokens: int
    total_tokens: int
    reasoning_tokens: int
    cache_creation_tokens: int
    cache_read_tokens: int
    total_cost_micros: int | None = Field(description="Millionths of a dollar; null: no prices.")


CONNECT_URL = (
    "A path of ours where a browser that is signed in connects the account; a program posts to it."
)


class Notice(BaseModel):
    code: str
    server_id: UUID | None
    message: str
    connect_url: str | None = Field(
        default=None,
        description=f"`mcp_auth_required`: {CONNECT_URL} Null: the user has to sign in.",
    )


class OpenItem(BaseModel):
    """What a turn waits for; beside these fields, those of its kind."""

    model_config = ConfigDict(extra="allow")

    id: UUID
    kind: Literal["tool_result", "approval", "elicitation", "auth", "child"]
    state: Literal["open", "answered", "expired", "cancelled"]
    tool_call_id: str
    created_at: datetime
    deadline: datetime | None = Field(description="What happens by itself then: its default.")
    child_chat_id: UUID | None = Field(description="`child`: the sub-agent's chat.")
    tool_name: str | None = None
    args: str | None = Field(default=None, description="The call's arguments, as the model wrote.")
    server_id: UUID | None = None
    server: str | None = Field(default=None, description="`approval`, `auth`: the server's slug.")
    mode: Literal["form", "url"] | None = Field(default=None, description="`elicitation`.")
    message: str | None = Field(default=None, description="`elicitation`, `auth`: what is asked.")
    display_name: str | None = Field(default=None, description="`auth`: the server's.")
    connect_url: str | None = Field(
        default=None,
        description=f"`auth`: {CONNECT_URL} The turn goes on by itself as soon as that is done.",
    )
    reason: ReauthReason | Literal["not_connected"] | None = Field(
        default=None, description="`auth`: why the account has to be connected."
    )
    answer: Json | None = Field(default=None, description="Only when it is asked for alone.")


class Turn(BaseModel):
    """One user message to its end."""

    id: UUID
    chat_id: UUID
    kind: Literal["message", "compact"]
    status: TurnStatus
    attempt: int
    plan_mode: Literal["plan"] | None
    model_config_id: UUID | None
    reasoning_effort: str | None
    mcp_server_ids: list[UUID]
    user_message_id: int | None
    queued_at: datetime
    started_at: datetime | None
    first_token_at: datetime | None
    finished_at: datetime | None
    open_items: list[OpenItem]
    notices: list[Notice]
    error: TurnProblem | None
    usage: TokenUsage


class Turns(BaseModel):
    turns: list[Turn] = Field(description="Newest first.")


class MessageUsage(TokenUsage):
    context_limit: int


class Message(BaseModel):
    id: int
    chat_id: UUID
    turn_id: UUID
    created_by: UUID | None
    model_config_id: UUID | None
    created_at: datetime
    role: Literal["system", "user", "assistant", "tool"]
    content: list[Json] = Field(
        description="Parts: text, reasoning, tool-call, tool-result, file, file-reference."
    )
    usage: MessageUsage | None


class QueuedMessage(BaseModel):
    id: UUID = Field(description="The id of its turn.")
    chat_id: UUID
    kind: Literal["message", "compact"]
    content: list[Json]
    model_config_id: UUID | None
    created_at: datetime


class Messages(BaseModel):
    messages: list[Message] = Field(description="Newest first; oldest first after `after_id`.")
    queued_messages: list[QueuedMessage] = Field(description="Only without a cursor.")
    has_more: bool


class NewChatAnswer(Chat):
    turn: Turn


class NewMessageAnswer(BaseModel):
    queued: bool
    turn: Turn
    message: Message | None = Field(description="Null while the turn is queued.")
    warnings: list[str]


class PlanAnswer(BaseModel):
    file_id: UUID
    name: str
    content: str = Field(description="Markdown.")
    created_at: datetime
    approved_at: datetime | None = Field(description="Null: not yet, or no more.")


class OfferedTool(BaseModel):
    name: str = Field(description="As the model knows it.")
    original_name: str
    description: str
    kind: Literal["builtin", "mcp", "dynamic"] = Field(
        description="Our own, a server's, or one that the client runs."
    )
    server_id: UUID | None
    server: str | None = Field(description="The server's slug.")
    requires_approval: bool = Field(description="Somebody is asked before each call.")


class DroppedTool(BaseModel):
    name: str = Field(description="Of a tool, or the slug of a whole server.")
    kind: Literal["server", "tool"]
    server_id: UUID | None
    reason: Reason
    message: str = Field(description="The reason as a sentence.")
    connect_url: str | None = Field(default=None, description=f"`auth_required`: {CONNECT_URL}")
    needs_reauth: ReauthReason | None = Field(
        default=None, description="Why the account has to be connected again, if it once was."
    )
    wanted_scopes: list[str] | None = Field(
        default=None, description="`insufficient_scope`: what the server wants and was not granted."
    )
    detail: str = Field(description="For administrators.")
    rule: str = Field(
        default="", description="The setting that decided; absent for other than administrators."
    )


class ChatTools(BaseModel):
    plan_mode: bool
    tools: list[OfferedTool]
    dropped: list[DroppedTool]


class Health(BaseModel):
    status: Literal["ok", "degraded", "unavailable", "draining"]
    checks: dict[str, Literal["ok", "failed"]]


def _problem(description: str) -> Json:
    return {"model": Problem, "description": description}


REFUSALS: dict[int | str, Json] = {
    400: _problem("The request is not valid."),
    401: _problem("No token, or one that is not valid."),
    413: _problem("The body is too large."),
    503: _problem("A service is away; `Retry-After` says when to try again."),
}
FORBIDDEN: dict[int | str, Json] = {403: _problem("Only administrators may do this.")}
NOT_FOUND: dict[int | str, Json] = {404: _problem("There is no such object, or it is not yours.")}
CONFLICT: dict[int | str, Json] = {409: _problem("It conflicts with the current state.")}
TOO_OFTEN: dict[int | str, Json] = {
    429: _problem("Too often in a minute; `Retry-After` says when to try again.")
}
TOO_MANY: dict[int | str, Json] = {
    429: _problem("The chat's queue is full; `Retry-After` says when to try again.")
}

StreamAnswer = Annotated[str, Field(description="Server-sent events.")]
