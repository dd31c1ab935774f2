"""What the API answers about pinned tools, for its documentation."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field

Json = dict[str, Any]


class PinnedTool(BaseModel):
    name: str
    definition: Json | None = Field(description="Null: it is new, and nobody has accepted it.")
    definition_hash: str = Field(description="Empty without a definition.")
    pinned_at: datetime
    pinned_by: UUID | None = Field(description="Null: by itself, when it was seen.")
    changed: bool = Field(description="A change waits to be accepted.")
    changed_hash: str | None = Field(description="What accepting it has to name.")
    changed_at: datetime | None


class PinnedTools(BaseModel):
    tools: list[PinnedTool]


class SchemaChange(BaseModel):
    op: Literal["add", "remove", "replace"]
    path: str = Field(description="A JSON Pointer into the schema.")
    value: Any = None
    before: Any = None


class ToolDiff(BaseModel):
    name: str
    before: Json | None
    before_hash: str
    after: Json | None = Field(description="Null: nothing waits to be accepted.")
    after_hash: str | None
    fields: dict[str, str] = Field(description="A unified diff of each field that differs.")
    schema_changes: list[SchemaChange]
