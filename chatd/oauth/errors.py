"""How an authorization server fails us: each says what happened, none holds what was said."""

import re
from collections.abc import Iterable

from chatd.core.errors import ChatdError
from chatd.core.oauth import CLIENT_REFUSALS

PERMANENT = frozenset(
    {
        "invalid_grant",
        "bad_refresh_token",
        "invalid_refresh_token",
        "interaction_required",
        "consent_required",
        "login_required",
    }
)
"""Asking again cannot help; only the user can. The second and third are GitHub's and Slack's, with
HTTP 200; the last three Entra's, of a refresh that its policies do not allow any more."""

_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_UNNAMED = "unnamed"


class Refused(ChatdError):
    """The authorization server refused.

    `permanent`: this grant is lost, its user has to connect again. `client`: it is the client that
    is refused, so registering again may help, and connecting again does not. Neither: it may be
    for good or not. Authorization servers say `invalid_request` of a dead refresh token (league's
    oauth2-server, Authlib and better-auth did), and of a fault that is mended in an hour.
    """

    code = "oauth_refused"
    status = 502

    def __init__(self, error: str, *, permanent: bool = False, client: bool = False) -> None:
        super().__init__(f"The authorization server refused: {error}.")
        self.error = error
        self.permanent = permanent
        self.client = client

    @classmethod
    def saying(cls, error: str, secrets: Iterable[str] = ()) -> "Refused":
        """For an error code (RFC 6749, section 5.2) of an answer, of which nothing else is kept.

        A code that no specification would allow, or that holds one of the secrets the server was
        sent, is not repeated.
        """
        named = _CODE.fullmatch(error) and not any(each in error for each in secrets if each)
        known = error in PERMANENT or error in CLIENT_REFUSALS
        return cls(
            error if named or known else _UNNAMED,
            permanent=error in PERMANENT,
            client=error in CLIENT_REFUSALS,
        )


class Unreachable(ChatdError):
    """No usable answer: nothing is known to be wrong with grant or client, so both are kept."""

    code = "oauth_unreachable"
    status = 502

    def __init__(self, reason: str) -> None:
        super().__init__(f"The authorization server cannot be used: {reason}.")
        self.reason = reason


class MixedUp(ChatdError):
    """The answer came from another authorization server than the one that was asked."""

    code = "oauth_mixed_up"
    status = 400


class BadIdentity(ChatdError):
    """An ID token that proves nothing."""

    code = "bad_identity"
    status = 400

    def __init__(self, reason: str) -> None:
        super().__init__(f"The ID token was refused: {reason}.")
        self.reason = reason
