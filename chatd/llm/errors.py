"""Every model failure becomes one TurnError, in one table; the first row that matches wins."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import httpx2

from chatd.core.errors import ErrorKind, NotDialled, TurnError, TurnFailed, turn_error
from chatd.llm.failures import NoModelApi, StreamEnded, StreamMalformed, StreamSilent
from chatd.llm.signals import Signal, detail, read_signal

_TOO_LONG = "The conversation is too long for this model."


@dataclass(frozen=True, slots=True)
class _Row:
    matches: Callable[[Signal], bool]
    kind: ErrorKind
    retryable: bool
    message: str


def classify(error: BaseException, *, provider: str, secrets: Sequence[str] = ()) -> TurnError:
    """`secrets` are the configured values that the detail must not show.

    A TurnFailed answers for itself.
    """
    if isinstance(error, TurnFailed):
        return error.error
    signal = read_signal(error)
    row = next(row for row in _ROWS if row.matches(signal))
    return turn_error(
        row.kind,
        row.message,
        detail=detail(signal, secrets),
        provider=provider,
        retryable=row.retryable,
        status_code=signal.status,
    )


def too_long(error: TurnError) -> bool:
    """Whether the provider refused the request for its length."""
    return error["message"] == _TOO_LONG


def _is(*kinds: type[BaseException]) -> Callable[[Signal], bool]:
    return lambda signal: isinstance(signal.error, kinds)


def _says(*words: str, statuses: tuple[int, ...] = ()) -> Callable[[Signal], bool]:
    return lambda signal: signal.status in statuses or any(word in signal.words for word in words)


_CONTEXT = _says(
    "context_length", "context length", "maximum context", "context window", "prompt is too long",
    "request too large", "too many tokens", statuses=(413,),
)  # fmt: skip
_MODEL = _says(
    "model_not_found", "model not found", "invalid model", "unknown model", "unsupported model",
    "no such model", "not a valid model",
)  # fmt: skip


def _max_output(signal: Signal) -> bool:
    return any(
        name in signal.words for name in ("max_tokens", "max_completion_tokens", "max_output")
    )


def _model_missing(signal: Signal) -> bool:
    gone = "does not exist" in signal.words or "not found" in signal.words
    return _MODEL(signal) or (gone and "model" in signal.words)


def _config_looking(signal: Signal) -> bool:
    return _CONTEXT(signal) or _model_missing(signal)


def _unless_config(matches: Callable[[Signal], bool]) -> Callable[[Signal], bool]:
    return lambda signal: matches(signal) and not _config_looking(signal)


def _silent(signal: Signal) -> bool:
    return isinstance(signal.error, StreamSilent | httpx2.ReadTimeout)


def _transport(signal: Signal) -> bool:
    if isinstance(signal.error, httpx2.UnsupportedProtocol | httpx2.LocalProtocolError):
        return False
    return isinstance(signal.error, httpx2.TransportError | OSError)


_DROPPED = _says(
    "connection reset", "connection refused", "connection error", "broken pipe", "goaway",
    "unexpected eof", "timed out", "timeout", "bad gateway", "gateway time-out",
    "service unavailable", "temporarily unavailable", statuses=(408, 502, 503, 504),
)  # fmt: skip

_ROWS: tuple[_Row, ...] = (
    _Row(_is(asyncio.CancelledError, GeneratorExit), "generic", False, "The call was stopped."),
    # The caller's own deadline: another attempt would be as late.
    _Row(_is(TimeoutError), "timeout", False, "The model did not answer in time."),
    _Row(_is(NotDialled), "config", False, "The provider's address is not allowed."),
    _Row(
        _says("certificate_verify_failed"),
        "config", False, "The model provider's certificate is not trusted.",
    ),
    _Row(_is(NoModelApi), "config", False, "The provider's address is no model API."),
    _Row(
        _says("without its required", "required following item", "required preceding item"),
        "config", False, "The model provider did not accept the message history.",
    ),
    _Row(_is(StreamEnded), "timeout", True, "The model's answer broke off."),
    _Row(_is(StreamMalformed), "timeout", True, "The model's answer arrived damaged."),
    _Row(_silent, "stream_silence_timeout", True, "The model stopped answering."),
    _Row(
        lambda signal: "previous response" in signal.words and "not found" in signal.words,
        "generic", True, "The model provider lost the earlier response.",
    ),
    _Row(_says("overloaded", statuses=(529,)), "overloaded", True, "The model is overloaded."),
    _Row(
        _says("quota", "billing", "payment required", "insufficient credits", statuses=(402,)),
        "usage_limit", False, "The model provider's usage limit is reached.",
    ),
    _Row(
        _says(
            "content_filter", "content filter", "content_policy_violation",
            "content management policy", "responsibleaipolicyviolation",
        ),
        "content_filter", False, "The model provider's content filter refused the request.",
    ),
    _Row(
        _says(
            "authentication", "unauthorized", "invalid api key", "invalid_api_key",
            "incorrect api key", statuses=(401,),
        ),
        "auth", False, "The model provider refused the API key.",
    ),
    _Row(
        _unless_config(_says("forbidden", "permission_denied", statuses=(403,))),
        "auth", False, "The API key may not use this model.",
    ),
    _Row(
        _unless_config(
            _says("rate limit", "rate_limit", "ratelimit", "too many requests", statuses=(429,))
        ),
        "rate_limit", True, "The model provider's rate limit is reached.",
    ),
    _Row(
        _says("provider disabled", "provider is disabled"),
        "provider_disabled", False, "The model provider is disabled.",
    ),
    _Row(_transport, "timeout", True, "The model provider could not be reached."),
    _Row(
        lambda signal: _DROPPED(signal) and not _config_looking(signal),
        "timeout", True, "The model provider could not be reached.",
    ),
    _Row(_CONTEXT, "config", False, _TOO_LONG),
    _Row(
        lambda signal: signal.status in (0, 400, 422) and _max_output(signal),
        "config", False, "The model does not accept the configured maximum of output tokens.",
    ),
    _Row(_model_missing, "config", False, "The model provider does not know this model."),
    _Row(
        lambda signal: 300 <= signal.status < 400,
        "config", False, "The provider's address redirects elsewhere.",
    ),
    _Row(
        lambda signal: signal.status == 404,
        "config", False, "The model provider does not know this model or address.",
    ),
    _Row(
        _says(
            "invalid_request_error", "invalid request", "bad request", "invalid_argument",
            statuses=(400, 405, 422),
        ),
        "config", False, "The model provider did not accept the request.",
    ),
    _Row(
        lambda signal: signal.status >= 500 or "server error" in signal.words
        or "server_error" in signal.words or "internal error" in signal.words,
        "generic", True, "The model provider failed.",
    ),
    _Row(lambda signal: True, "generic", False, "The model call failed."),
)  # fmt: skip
