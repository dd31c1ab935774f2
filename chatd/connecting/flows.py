"""A user's way to an authorization server and back: its stages, as values and as stored data."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Self
from urllib.parse import urlsplit
from uuid import UUID

from chatd.core.errors import BadRequest, ChatdError

LIFETIME_S = 600
"""Of each stage: from the ticket to going on from the consent page, from there to the callback."""

COOKIE_PREFIX = "mcp_oauth2_"
MAX_RETURN_TO = 2048


class Stopped(ChatdError):
    """A flow cannot go on; its message is for the user, in words of our own."""

    code = "oauth_flow"

    def __init__(
        self, message: str, *, page_status: int = 400, reason: str = "", return_to: str = ""
    ) -> None:
        super().__init__(message)
        self.page_status = page_status
        self.reason = reason
        """A stable code, for the log."""
        self.return_to = return_to


@dataclass(frozen=True, slots=True)
class Ticket:
    """Where a user's browser begins."""

    url: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Asked:
    """What the consent page names."""

    server_name: str
    server_host: str
    username: str
    authorization_url: str
    token_url: str
    scopes: tuple[str, ...]

    @property
    def authorization_host(self) -> str:
        return urlsplit(self.authorization_url).netloc

    @property
    def token_host(self) -> str:
        """Who hands out access: mostly the host where the user signs in."""
        return urlsplit(self.token_url).netloc


@dataclass(frozen=True, slots=True)
class Cookie:
    """What ties a flow to one browser; each flow has one of its own, so two at once are fine."""

    name: str
    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Opened:
    """A consent page to show."""

    asked: Asked
    cookie: Cookie
    csrf: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Connected:
    """The end of a flow that went well."""

    user_id: UUID
    server_id: UUID
    server_name: str
    return_to: str


@dataclass(frozen=True, slots=True)
class Disconnected:
    """`token_revoked`: the authorization server was told and agreed; else why not."""

    token_revoked: bool
    token_revocation_error: str


@dataclass(frozen=True, slots=True)
class Pending:
    """Kept while the browser is at the authorization server: what its answer is held against."""

    issuer: str
    sends_issuer: bool
    client_id: str
    token_url: str
    redirect_uri: str
    resource: str
    scopes: str
    verifier: str = field(repr=False)
    return_to: str = ""

    def data(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Self:
        return cls(**data)


def flow_name(secret: str) -> str:
    """Names a flow and tells nothing of its secret."""
    return hashlib.sha256(f"flow\n{secret}".encode()).hexdigest()[:16]


def csrf_of(cookie: str) -> str:
    """What only a page of ours can send: scripts elsewhere cannot read the cookie."""
    return hashlib.sha256(f"csrf\n{cookie}".encode()).hexdigest()


def cookie_name(flow: str) -> str:
    return COOKIE_PREFIX + flow


def checked_return(path: str) -> str:
    """A path of our own origin, or nothing. Raises `BadRequest`."""
    if not path:
        return ""
    usable = (
        len(path) <= MAX_RETURN_TO
        and path.startswith("/")
        and not path.startswith(("//", "/\\"))
        and path.isascii()
        and path.isprintable()
        and not {"\\", " ", '"', "<", ">"} & set(path)
    )
    if not usable:
        raise BadRequest(
            "return_to must be a path of this site.",
            validations=[{"field": "return_to", "detail": "A path such as /settings."}],
        )
    return path
