"""What an administrator is told where OAuth cannot be set up by itself, with all they need to do it
by hand."""

from uuid import UUID

from chatd.core.errors import BadRequest, Forbidden
from chatd.core.oauth import Discovered
from chatd.core.tools import JsonObject
from chatd.oauth.attempts import MANUAL, Attempted, shown

_MANUAL_FIELDS = ("oauth2_client_id", "oauth2_auth_url", "oauth2_token_url")


def client_by_hand(found: Discovered) -> BadRequest:
    return BadRequest(
        "This MCP server's client was configured by hand.",
        detail=f"Its authorization server is {shown(found.issuer.issuer)} now. Give {MANUAL} for"
        " it, or empty them to register a client there.",
    )


def not_by_itself(found: Discovered) -> Forbidden:
    return Forbidden(
        "This MCP server's authorization server changed in a way that an administrator has to see.",
        detail=f"It is {shown(found.issuer.issuer)} now, with endpoints at other hosts.",
    )


def refusal(error: Attempted, server_id: UUID, found: Discovered | None) -> BadRequest:
    """A redirect URI that it names stays good: the server may be added with that very id. What was
    found is told as the fields in which an administrator gives it, beside a client of their own."""
    return BadRequest(
        f"OAuth cannot be set up by itself: give {MANUAL}, or a server that publishes its metadata"
        " (RFC 9728) and registers clients (RFC 7591).",
        detail=f"{error.detail}\nThe redirect URI holds the server's id: if you add the server by"
        f' hand, give "id": "{server_id}".',
        extra={**error.extra, "server_id": str(server_id), "discovered": _as_fields(found)},
        validations=[
            {"field": name, "detail": "It could not be discovered."}
            for name in (*_MANUAL_FIELDS, *_unexpected(error))
        ],
    )


def _unexpected(error: Attempted) -> tuple[str, ...]:
    """Metadata was found, and only its name is another one."""
    return ("oauth2_issuer",) if any(attempt.issuer for attempt in error.attempts) else ()


def _as_fields(found: Discovered | None) -> JsonObject | None:
    return found and {
        "oauth2_issuer": found.issuer.issuer,
        "oauth2_auth_url": found.issuer.authorization_endpoint,
        "oauth2_token_url": found.issuer.token_endpoint,
        "oauth2_revocation_url": found.issuer.revocation_endpoint,
        "oauth2_scopes": " ".join(found.scopes),
    }
