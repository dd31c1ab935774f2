"""When a token is renewed, and how soon again after a failure: values in, values out."""

import hashlib
from datetime import datetime
from typing import Literal
from uuid import UUID

Age = Literal["fresh", "due", "ending", "over"]
"""`due`: renewed behind the caller's back. `ending`: it may be over before it arrives, so the
caller waits for the new one, and uses this one if there is none."""

AHEAD_S = 120.0
FIRST_TO_LAST = 0.4
"""By how much of the window the processes of a fleet differ."""
ENDING = 0.5
ENDING_S = 10.0

PAUSE_S = 1.0
MAX_PAUSE_S = 15.0


def age_of(
    expires_at: datetime | None,
    lifetime_s: float | None,
    *,
    now: datetime,
    share: float,
    ahead_s: float = AHEAD_S,
) -> Age:
    """`share` (0 to 1): which part of the window this process leaves to others.

    A token of unknown end is used until somebody refuses it.
    """
    if expires_at is None:
        return "fresh"
    left_s = (expires_at - now).total_seconds()
    if left_s <= 0:
        return "over"
    window_s = ahead_s if lifetime_s is None else min(ahead_s, lifetime_s / 4)
    if left_s <= min(window_s * ENDING, ENDING_S):
        return "ending"
    return "due" if left_s <= window_s * (1 - FIRST_TO_LAST * share) else "fresh"


def share_of(token_id: UUID, process: bytes) -> float:
    """Another one for each token and process, the same every time."""
    digest = hashlib.blake2b(token_id.bytes, key=process, digest_size=4).digest()
    return int.from_bytes(digest) / 2**32


def pause_s(failures: int, *, share: float, first_s: float = PAUSE_S) -> float:
    """For how long an authorization server that failed so often in a row is left alone."""
    longest = min(first_s * 2.0 ** min(failures - 1, 16), MAX_PAUSE_S)
    return longest * (1 - share / 2)
