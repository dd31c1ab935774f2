"""What an error of the SDK means, given what is known of the exchange below it."""

import re

from mcp.shared.exceptions import MCPError
from mcp_types import (
    CONNECTION_CLOSED,
    INTERNAL_ERROR,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
)

from chatd.mcp.errors import ServerFailed, redacted, without
from chatd.mcp.exchange import Exchange

_STAND_INS = (
    (INTERNAL_ERROR, "Server returned an error response"),
    (METHOD_NOT_FOUND, "Not Found"),
)
"""What the SDK says for an HTTP error without a JSON-RPC error in it."""

_SESSION_GONE = re.compile(r"session (not found|terminated)", re.IGNORECASE)
_NO_SESSION = re.compile(r"\bsession\b", re.IGNORECASE)


def verdict(error: BaseException, exchange: Exchange) -> ServerFailed:
    """Why the request failed, and whether it may have had its effect all the same."""
    if exchange.failure is not None:
        return exchange.failure
    error = _leaf(error)
    if isinstance(error, MCPError):
        message = redacted(without(error.message, exchange.secrets))
        return (
            _by_session(error, exchange)
            or _by_status(error, exchange)
            or _by_code(error, exchange)
            or ServerFailed("rpc", message, code=error.code, data=error.data)
        )
    if exchange.status == 404 and exchange.in_session:
        return _session_unknown()
    if exchange.status >= 400:
        return _status_failure(exchange)
    unknown = exchange.stage == "sent"
    return ServerFailed("protocol", "the server does not follow the protocol", unknown=unknown)


def _leaf(error: BaseException) -> BaseException:
    """Task groups wrap what went wrong, once for each of them."""
    while isinstance(error, BaseExceptionGroup):
        group: BaseExceptionGroup[BaseException] = error
        error = group.exceptions[0]
    return error


def _by_session(error: MCPError, exchange: Exchange) -> ServerFailed | None:
    """The server has forgotten the session: it says so in several ways, and did nothing."""
    gone = (
        (exchange.status == 404 and exchange.in_session)
        or (error.code == INVALID_REQUEST and _SESSION_GONE.search(error.message))
        or (exchange.status == 400 and exchange.in_session and _NO_SESSION.search(error.message))
    )
    return _session_unknown() if gone else None


def _session_unknown() -> ServerFailed:
    return ServerFailed("session_unknown", "the server has forgotten the session")


def _by_status(error: MCPError, exchange: Exchange) -> ServerFailed | None:
    """The HTTP status, unless the server put an error of its own beside it."""
    status = exchange.status
    own_error = status not in (401, 403) and (error.code, error.message) not in _STAND_INS
    if status < 300 or (status >= 400 and own_error):
        return None
    return _status_failure(exchange)


def _status_failure(exchange: Exchange) -> ServerFailed:
    match status := exchange.status:
        case 401:
            message = "the server wants other credentials (HTTP 401)"
            return ServerFailed("auth_required", message, in_session=exchange.in_session)
        case 403:
            return ServerFailed("forbidden", "the server refused access (HTTP 403)")
        case 404 | 410:
            return ServerFailed("not_found", f"no MCP server is at this address (HTTP {status})")
        case 429 | 503:
            return ServerFailed("unavailable", f"the server is too busy (HTTP {status})")
        case _ if status >= 500:
            return ServerFailed("unavailable", f"the server failed (HTTP {status})", unknown=True)
        case _ if status < 400:
            return ServerFailed("protocol", f"the server is at another address (HTTP {status})")
        case _:
            return ServerFailed("protocol", f"the server refused the request (HTTP {status})")


def _by_code(error: MCPError, exchange: Exchange) -> ServerFailed | None:
    """Errors that the SDK makes up when a request has no usable answer."""
    sent = exchange.stage == "sent"
    if exchange.status >= 400:
        return None
    if error.code == CONNECTION_CLOSED:
        return ServerFailed("closed", "the connection broke", unknown=sent)
    if error.code == PARSE_ERROR:
        return ServerFailed("protocol", "the answer is not valid JSON-RPC", unknown=sent)
    if error.code == INVALID_REQUEST and error.message.startswith("Unexpected content type"):
        return ServerFailed("protocol", "the answer is neither JSON nor events", unknown=sent)
    if error.code == INVALID_REQUEST and exchange.status == 202:
        return ServerFailed("protocol", "the server accepted without an answer", unknown=sent)
    return None
