"""What the API answers, for its documentation; routes give ready dictionaries to `json_answer`."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
from pydantic import BaseModel, Field
from starlette.responses import Response

from chatd.core.errors import ErrorKind
from chatd.core.models import EffortOptions, ModelOptions
from chatd.core.reasons import Reason
from chatd.core.servers import Approval, AuthType, Availability, Transport
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


class Notice(BaseModel):
    code: str
    server_id: UUID | None
    message: str


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
    open_items: list[Json]
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


class ModelChoice(BaseModel):
    id: UUID
    provider: str
    model: str
    display_name: str
    is_default: bool
    context_limit: int
    reasoning_effort: EffortOptions | None


class ProviderChoice(BaseModel):
    id: UUID
    provider: str
    display_name: str
    available: bool
    unavailable_reason: Literal["missing_api_key"] | None
    models: list[ModelChoice]


class Choices(BaseModel):
    providers: list[ProviderChoice]


class Provider(BaseModel):
    id: UUID
    provider: str
    display_name: str
    base_url: str
    enabled: bool
    has_api_key: bool
    source: Literal["database"]
    created_at: datetime
    updated_at: datetime


class ModelConfig(BaseModel):
    id: UUID
    provider_id: UUID
    provider: str
    model: str
    display_name: str
    enabled: bool
    is_default: bool
    context_limit: int
    compression_threshold: int
    options: ModelOptions
    created_by: UUID | None
    created_at: datetime
    updated_at: datetime


class McpServer(BaseModel):
    """Secrets are never answered, only whether there is one. Members get some fields empty."""

    id: UUID
    display_name: str
    slug: str
    description: str
    icon_url: str
    transport: Transport | Literal[""] = Field(description="Empty for members.")
    url: str
    auth_type: AuthType
    oauth2_client_id: str
    has_oauth2_secret: bool
    oauth2_auth_url: str
    oauth2_token_url: str
    oauth2_scopes: str
    api_key_header: str
    has_api_key: bool
    has_custom_headers: bool
    tool_allow_list: list[str]
    tool_deny_list: list[str]
    availability: Availability
    enabled: bool
    model_intent: bool
    allow_in_plan_mode: bool
    forward_coder_headers: bool
    trust_annotations: bool
    require_approval: Approval
    tool_settings: Json
    tool_timeout_seconds: int
    auth_connected: bool
    version: int
    created_by: UUID | None
    updated_by: UUID | None
    created_at: datetime
    updated_at: datetime


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
    detail: str = Field(description="For administrators.")


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
TOO_MANY: dict[int | str, Json] = {
    429: _problem("The chat's queue is full; `Retry-After` says when to try again.")
}

StreamAnswer = Annotated[str, Field(description="Server-sent events.")]
