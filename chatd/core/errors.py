"""Failures: each carries its own answer (code, HTTP status), so one renderer serves them all."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, TypedDict


class Validation(TypedDict):
    """One field of a refused request."""

    field: str
    detail: str


class ChatdError(Exception):
    """The server failed; subclasses say more precisely how."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500

    def __init__(
        self,
        message: str = "",
        *,
        detail: str = "",
        validations: Sequence[Validation] = (),
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message or self.__class__.__doc__ or self.code)
        self.message = str(self)
        self.detail = detail
        self.validations = list(validations)
        self.headers = dict(headers or {})
        self.extra = dict(extra or {})


class BadRequest(ChatdError):
    """The request is not valid."""

    code = "bad_request"
    status = 400


class Unauthorized(ChatdError):
    """A valid token is needed."""

    code = "unauthorized"
    status = 401


class Forbidden(ChatdError):
    """This is not allowed for your role."""

    code = "forbidden"
    status = 403


class NotFound(ChatdError):
    """Resource not found or you do not have access to this resource."""

    code = "not_found"
    status = 404


class Conflict(ChatdError):
    """The request conflicts with the current state."""

    code = "conflict"
    status = 409


class UsageLimit(Conflict):
    """Chat usage limit exceeded."""

    code = "usage_limit"


class TooLarge(ChatdError):
    """The request body is too large."""

    code = "too_large"
    status = 413


class TooMany(ChatdError):
    """Too many requests."""

    code = "too_many"
    status = 429


class BadGateway(ChatdError):
    """What this request needs from elsewhere cannot be had."""

    code = "bad_gateway"
    status = 502


class Unavailable(ChatdError):
    """A service this request needs is away; try again shortly."""

    code = "unavailable"
    status = 503


class TimedOut(ChatdError):
    """It took too long; try again later."""

    code = "timeout"
    status = 504


class LeaseLost(ChatdError):
    """Another worker owns this turn now, or a command took it; nothing was written."""

    code = "lease_lost"


class Stale(ChatdError):
    """The policy moved since this worker loaded it; reload, then decide again."""

    code = "stale"


class NotDialled(Exception):
    """Mixed into a transport's error when our own address rules refused: no retry can help."""


ErrorKind = Literal[
    "generic",
    "auth",
    "auth_required",
    "config",
    "content_filter",
    "missing_key",
    "overloaded",
    "provider_disabled",
    "rate_limit",
    "stream_silence_timeout",
    "timeout",
    "usage_limit",
    "worker_lost",
    "policy",
    "step_limit",
    "time_limit",
]


class TurnError(TypedDict):
    """Why a turn failed: stored in its row, sent as the `error` event.

    `detail` is at most 500 characters and never holds a secret; `status_code` is the
    provider's HTTP status or 0.
    """

    kind: ErrorKind
    message: str
    detail: str
    provider: str
    retryable: bool
    status_code: int


def turn_error(
    kind: ErrorKind,
    message: str,
    *,
    detail: str = "",
    provider: str = "",
    retryable: bool = False,
    status_code: int = 0,
) -> TurnError:
    return TurnError(
        kind=kind,
        message=message,
        detail=detail[:500],
        provider=provider,
        retryable=retryable,
        status_code=status_code,
    )


class TurnFailed(ChatdError):
    """The turn cannot go on; carries the error that its row keeps."""

    code = "turn_failed"

    def __init__(self, error: TurnError) -> None:
        super().__init__(error["message"])
        self.error = error
