"""Why there is no token for a request."""

from typing import Literal

from chatd.core.errors import ChatdError
from chatd.core.oauth import ReauthReason

Missing = ReauthReason | Literal["not_connected"]


class NoToken(ChatdError):
    """No usable token can be had at the moment; the connection stands."""

    code = "no_token"
    status = 503


class Elsewhere(NoToken):
    """Another process is renewing this token."""


class Unclear(NoToken):
    """The authorization server refused to renew it, and it may be for good or not."""

    def __init__(self, error: str) -> None:
        super().__init__(f"The token could not be renewed: {error}.")
        self.error = error


class NotConnected(NoToken):
    """Only the user can change this, by connecting."""

    code = "not_connected"
    status = 409

    def __init__(self, reason: Missing) -> None:
        super().__init__(f"The account is not connected: {reason}.")
        self.reason: Missing = reason
