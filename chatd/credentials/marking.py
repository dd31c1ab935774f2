"""Tokens that their users have to connect again: the mark in the row, and the audit log's line."""

from chatd import audit, logs
from chatd.audit import By, Target
from chatd.core.oauth import ReauthReason, StoredToken
from chatd.store.db import Database
from chatd.store.oauth_tokens import Unreadable, mark_reauth

log = logs.get("tokens")


async def mark(
    db: Database, token: StoredToken | Unreadable, reason: ReauthReason, error: str
) -> bool:
    """The user has to connect again, and the audit log says why, once for all that it is marked
    in a row. False: somebody was faster."""
    times = await mark_reauth(db, token.id, generation=token.generation, reason=reason, error=error)
    log.warning("token lost", token=str(token.id), reason=reason, error=error, times=times)
    if times != 1:
        return times > 0
    told = {
        "server_id": str(token.server_id) if token.server_id else None,
        "user_id": str(token.user_id) if token.user_id else None,
        "reason": reason,
        "error": error,
    }
    async with db.transaction() as session:
        target = Target("oauth_token", token.id)
        audit.record(session, By(), "token_refresh_failed", target, after=told)
    return True
