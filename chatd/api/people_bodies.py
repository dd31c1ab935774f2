"""What is sent and answered about users, their tokens and groups."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import Path, Query
from pydantic import AfterValidator, BaseModel, Field, StrictInt, StringConstraints

from chatd.api.admin import AdminBody
from chatd.api.fields import Flag, refusal, says
from chatd.core.text import is_line
from chatd.store import groups
from chatd.store.tokens import SHOWN
from chatd.store.users import NAME_LENGTH, USERNAME, USERNAME_RULE

MAX_DAYS = 3650

UserId = Annotated[UUID, Path(description="The user's id."), says("Invalid user ID.")]
GroupId = Annotated[UUID, Path(description="The group's id."), says("Invalid group ID.")]
TokenId = Annotated[UUID, Path(description="The token's id."), says("Invalid token ID.")]
AfterId = Annotated[
    UUID | None, Query(description="The last one of the page before."), says("Invalid after_id.")
]


def _visible(text: str) -> str:
    if not is_line(text):
        raise refusal("A name is one line, without invisible characters.")
    return text


def _username(text: str) -> str:
    if not USERNAME.fullmatch(text):
        raise refusal(f"Invalid username: {USERNAME_RULE}")
    return text


Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=NAME_LENGTH),
    AfterValidator(_visible),
]
GroupName = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=groups.NAME_LENGTH),
    AfterValidator(_visible),
]
Description = Annotated[str, StringConstraints(strip_whitespace=True, max_length=2000)]
Role = Literal["admin", "member"]


class OwnPatch(AdminBody):
    name: Name | None = None


class UserBody(AdminBody):
    username: Annotated[str, AfterValidator(_username)]
    name: Annotated[Name | Literal[""], Field(description="Empty: the username.")] = ""
    role: Role = "member"


class UserPatch(AdminBody):
    """What is absent stays."""

    name: Name | None = None
    role: Role | None = None
    suspended: Flag | None = None


class TokenBody(AdminBody):
    name: Annotated[Name, Field(description="What it is for.")]
    expires_in_days: (
        Annotated[StrictInt, Field(ge=1, le=MAX_DAYS, description="Null: never.")] | None
    ) = None


class GroupBody(AdminBody):
    name: GroupName
    description: Description = ""


class GroupPatch(AdminBody):
    """What is absent stays."""

    name: GroupName | None = None
    description: Description | None = None


class GroupRef(BaseModel):
    id: UUID
    name: str


class Me(BaseModel):
    id: UUID
    username: str
    name: str
    role: Role
    groups: list[GroupRef]
    created_at: datetime
    csrf_token: str = Field(
        description="What a page of a browser that is signed in sends as `X-CSRF-Token`; for a"
        " token it is empty, and not needed."
    )


class User(BaseModel):
    id: UUID
    username: str
    name: str
    role: Role
    suspended: bool
    spend_limit_micros: int | None
    created_at: datetime
    last_used_at: datetime | None = Field(description="When a token of theirs last was.")


class UserDetails(User):
    groups: list[GroupRef]


class Users(BaseModel):
    users: list[User]
    has_more: bool


class Token(BaseModel):
    id: UUID
    name: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class NewToken(Token):
    token: str = Field(description="The token itself: it is never shown again.")


class Tokens(BaseModel):
    tokens: list[Token] = Field(
        description=f"Newest first, at most {SHOWN}. Those that no longer "
        "work are among them for some weeks, when there is room."
    )


class Group(BaseModel):
    id: UUID
    name: str
    description: str
    member_count: int
    server_ids: list[UUID] = Field(description="MCP servers that are restricted to groups.")
    created_at: datetime


class Groups(BaseModel):
    groups: list[Group]


class Member(BaseModel):
    id: UUID
    username: str
    name: str
    suspended: bool


class Members(BaseModel):
    members: list[Member]
    has_more: bool
