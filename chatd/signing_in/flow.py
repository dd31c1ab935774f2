"""A sign-in's stages, as values and as stored data."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self
from uuid import UUID

from chatd.core.errors import ChatdError
from chatd.store.sessions import NewSession

LIFETIME_S = 600
LOGIN_PATH = "/api/experimental/login"
CALLBACK_PATH = LOGIN_PATH + "/callback"
"""Frozen: providers keep it as the redirect URI."""


class SignInFailed(ChatdError):
    """Nobody was signed in; the message is for the user, in words of our own."""

    code = "sign_in_failed"

    def __init__(self, message: str, *, page_status: int = 400, reason: str) -> None:
        super().__init__(message)
        self.page_status = page_status
        self.reason = reason
        """For the log; nothing of what the provider said but an error code."""


@dataclass(frozen=True, slots=True)
class Begun:
    """Where the browser goes, and what ties the way back to it."""

    url: str = field(repr=False)
    flow: str
    cookie: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class SignedInNow:
    session: NewSession
    return_to: str
    former_user_id: UUID | None
    """Whose session this browser had until now: it is over."""


@dataclass(frozen=True, slots=True)
class Pending:
    """Kept while the browser is at the provider: what its answer is held against."""

    issuer: str
    sends_issuer: bool
    client_id: str
    redirect_uri: str
    scopes: str
    return_to: str
    verifier: str = field(repr=False)
    nonce: str = field(repr=False)

    def data(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Self:
        return cls(**data)


def flow_of(state: str) -> str:
    """Names a sign-in and tells nothing of its secret: each has a cookie of its own, so that two
    tabs do not disturb each other."""
    return hashlib.sha256(f"login\n{state}".encode("utf-8", "surrogatepass")).hexdigest()[:16]
