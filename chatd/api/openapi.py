"""The OpenAPI document: as FastAPI makes it, without the 422 that we never answer."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from chatd.api import docs_page

DESCRIPTION = """
Chats whose turns run in the background: post a message, follow the events, read the result.

Every request needs `Authorization: Bearer <token>`, or the cookie of a browser that has signed in:
send it to `/login?return_to=/path`. With the cookie, whatever is not GET or HEAD needs the header
`X-CSRF-Token`, which `GET /users/me` tells. Failures have one shape, `Problem`, with a stable
`code`. Every answer carries `X-Request-Id`; a client may choose it.

A turn with the status `requires_action` waits for its user. Its `open_items` say for what: approve
or deny a call, send the results of tools that you run yourself, answer a server's question,
connect an account. It goes on when the last one is answered, and by itself after their deadlines.

`/chats/{chat}/stream` and `/chats/watch` also speak WebSocket: each message is one event,
`{"id", "event", "data"}`.
"""

_NEVER = ("HTTPValidationError", "ValidationError")

TAGS = [
    {"name": "chats", "description": "Conversations and their event streams."},
    {"name": "turns", "description": "Messages and what became of them."},
    {"name": "models", "description": "Models to choose from; providers and configs for admins."},
    {"name": "mcp servers", "description": "Where tools come from."},
    {"name": "config", "description": "Settings of the deployment, and everybody's own."},
    {"name": "files", "description": "Bytes that messages name by id."},
    {"name": "usage", "description": "What model calls cost, and what users may spend."},
    {"name": "users", "description": "Oneself, one's tokens; users and groups for admins."},
    {"name": "operating", "description": "Everybody's turns, for administrators."},
    {"name": "audit", "description": "What was done, by whom; for administrators."},
    {"name": "health", "description": "For load balancers, and for operators."},
]


def install(app: FastAPI) -> None:
    """Replace the app's document, which is made at the first request for it, and its page."""
    made: dict[str, Any] = {}

    def document() -> dict[str, Any]:
        if not made:
            made.update(_document(app))
        return made

    app.openapi = document
    app.add_route("/docs", docs_page.show, include_in_schema=False)


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
        tags=app.openapi_tags,
    )
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            for response in operation["responses"].values():
                response.setdefault("headers", {})["X-Request-Id"] = {
                    "description": "The request's id.",
                    "schema": {"type": "string"},
                }
    for name in _NEVER:
        document["components"]["schemas"].pop(name, None)
    return document
