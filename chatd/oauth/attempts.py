"""What was tried at which URL, and the failures that tell an administrator so."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import httpx2

from chatd.core.errors import BadRequest
from chatd.core.oauth import Issuer

Problem = Literal[
    "",
    "open",
    "missing",
    "invalid",
    "redirect",
    "unreachable",
    "blocked",
    "resource",
    "issuer",
    "pkce",
    "endpoint",
    "refused",
]
"""Of which kind a finding is; `open`: the server answered without asking for a login."""

MANUAL = "oauth2_client_id, oauth2_auth_url and oauth2_token_url (and oauth2_client_secret)"
_MAX_SHOWN = 200
_UNPRINTABLE = re.compile(r"[^\x21-\x7e]")


class Fault(NamedTuple):
    """Why a document or an answer is of no use: in our words, never in those of the body."""

    found: str
    problem: Problem
    issuer: str = ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One URL, without query, and what was there. Never holds a body or a secret."""

    url: str
    found: str
    problem: Problem = ""
    issuer: str = ""
    """What metadata names instead of the issuer that was looked for, letter by letter."""


class Attempted(BadRequest):
    """A search that came to nothing: `next_step` says what an administrator can do about it."""

    def __init__(self, message: str, attempts: Sequence[Attempt], next_step: str) -> None:
        self.attempts = tuple(attempts)
        self.next_step = next_step
        tried = [f"{attempt.url}: {attempt.found}" for attempt in self.attempts]
        super().__init__(
            message,
            detail="\n".join([*tried, next_step]),
            extra={
                "attempts": [
                    {"url": attempt.url, "found": attempt.found} for attempt in self.attempts
                ],
                "next_step": next_step,
            },
        )


class DiscoveryFailed(Attempted):
    """No usable authorization server was found.

    `conventional` is set when nothing at all is published although a login is wanted: the fixed
    endpoints of 2025-03-26 at the server's origin, worth a try only if registering there works.
    """

    code = "discovery_failed"

    def __init__(
        self,
        attempts: Sequence[Attempt],
        next_step: str,
        *,
        conventional: Issuer | None = None,
    ) -> None:
        super().__init__("No usable authorization server was found.", attempts, next_step)
        self.conventional = conventional


class RegistrationFailed(Attempted):
    """The authorization server took no client of ours."""

    code = "registration_failed"

    def __init__(self, attempts: Sequence[Attempt], next_step: str) -> None:
        super().__init__("The authorization server registered no client.", attempts, next_step)


def shown(url: str | httpx2.URL) -> str:
    """The URL as it may be shown: no query, fragment or credentials (any can be a secret)."""
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, ValueError):
        return "(not a URL)"
    bare = parsed.copy_with(query=None, fragment=None, username=None, password=None)
    return _UNPRINTABLE.sub("?", str(bare))[:_MAX_SHOWN]
