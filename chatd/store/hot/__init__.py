"""The statements on a turn's path, one constant each; a test prepares them all.

Each is its own transaction on a borrowed asyncpg connection (`Database.fetch`). Those that read the
queue lock the chat and compare the locked row's `version` with the snapshot's: a statement keeps
the snapshot it began with, so after waiting for the lock it would not see what was queued
meanwhile. Then it writes nothing, `fresh` is false, and the caller runs it again.

Worker writes carry the lease in `fence`; without it they write nothing and return no row.
"""

from chatd.store.hot.claiming import (
    CLAIM,
    CLAIM_LIMITED,
    CLAIMABLE,
    GROUPS,
    LEASES,
    LIMITED,
    LOAD,
    LOCK_CLAIMS,
    RELOAD,
    RENEW,
    ROOM,
    SERVER_ROW,
    SERVERS,
)
from chatd.store.hot.committing import (
    COMMIT_COMPACTION,
    COMMIT_RESULTS,
    COMMIT_STEP,
    FINISH,
    HAND_BACK,
    LANDED,
    MARK_SENT,
    RECORD_RESULT,
)
from chatd.store.hot.pieces import (
    ACTIVE,
    CHAT_COLUMNS,
    LEASE,
    MAY_RETRY,
    MAY_USE,
    NEEDS_REAUTH,
    TURN_COLUMNS,
    UNDECIDED,
    USABLE_MODEL,
)
from chatd.store.hot.submitting import CREATE_CHAT, SUBMIT

__all__ = [
    "ACTIVE",
    "CHAT_COLUMNS",
    "CLAIM",
    "CLAIMABLE",
    "CLAIM_LIMITED",
    "COMMIT_COMPACTION",
    "COMMIT_RESULTS",
    "COMMIT_STEP",
    "CREATE_CHAT",
    "FINISH",
    "GROUPS",
    "HAND_BACK",
    "LANDED",
    "LEASE",
    "LEASES",
    "LIMITED",
    "LOAD",
    "LOCK_CLAIMS",
    "MARK_SENT",
    "MAY_RETRY",
    "MAY_USE",
    "NEEDS_REAUTH",
    "RECORD_RESULT",
    "RELOAD",
    "RENEW",
    "ROOM",
    "SERVERS",
    "SERVER_ROW",
    "SUBMIT",
    "TURN_COLUMNS",
    "UNDECIDED",
    "USABLE_MODEL",
]
