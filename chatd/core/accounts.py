"""A user's own account at a server: what they are told who have to connect it, and where."""

from collections.abc import Mapping
from uuid import UUID

from chatd.core.oauth import CALLBACK_PATH, ReauthReason
from chatd.core.reasons import SENTENCES, Reason
from chatd.core.servers import McpServer, UserAuth
from chatd.core.work import Notice

AUTH_REQUIRED = "mcp_auth_required"
"""The notice's code; `auth_required` is a server that refuses what an administrator has set."""

CONNECT_PATH = CALLBACK_PATH.removesuffix("callback") + "connect"

MORE_ACCESS = "It wants more access than it was given: connect your account once more to allow it."

_WHY: Mapping[ReauthReason, str] = {
    "invalid_grant": "its server has ended the connection",
    "expired": "the connection has expired",
    "client_changed": "the client that it was granted to is not good any more",
    "insufficient_scope": "it wants more access than it was given",
    "unauthorized": "its server does not accept the connection any more",
    "tampered": "the connection cannot be read",
    "refresh_lost": "the connection was lost while it was renewed",
    "refresh_refused": "its server does not renew the connection",
}


def connect_path(auth_type: str, server_id: UUID) -> str | None:
    """The page where a browser that is signed in connects; None: signing in is all there is to do.

    A path, as what holds it is kept for good, and the address of a deployment may change: clients
    know where they reach it. Never a ticket, which is for one user, once, soon.
    """
    return CONNECT_PATH.format(server=server_id) if auth_type == "oauth2" else None


def connectable(auth: UserAuth) -> bool:
    """Whether waiting for the user makes sense: who has no login may have none to sign in with."""
    return auth.type == "oauth2" or auth.connection_id is not None


def reason_of(auth: UserAuth) -> ReauthReason | None:
    """Why an account that does not work has to be connected again; None: it never was."""
    if auth.needs_reauth is None and auth.connection_id is not None:
        return "unauthorized"
    return auth.needs_reauth


def sentence(auth: UserAuth) -> str:
    """What a user is told whose account does not work."""
    reason = reason_of(auth)
    if auth.type == "user_oidc":
        if reason is None:
            return "Sign in with your organisation's account to use this server."
        return "Sign in again to use this server."
    if reason is None:
        return SENTENCES["auth_required"]
    return f"Connect your account again to use this server: {_WHY[reason]}."


def refusal_sentence(reason: Reason, server: McpServer | None) -> str:
    """Why a server or its tools are not there."""
    if reason == "auth_required" and server is not None and isinstance(server.auth, UserAuth):
        return sentence(server.auth)
    return SENTENCES[reason]


def account_notice(server: McpServer, says: str) -> Notice:
    return Notice(
        code=AUTH_REQUIRED,
        server_id=str(server.id),
        message=f"{server.slug}: {says}",
        connect_url=connect_path(server.auth.type, server.id),
    )
