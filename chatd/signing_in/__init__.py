"""Signing in with an OpenID provider: to it, back with a code, and a session here."""

from chatd.signing_in.flow import (
    LIFETIME_S,
    LOGIN_PATH,
    Begun,
    SignedInNow,
    SignInFailed,
    flow_of,
)
from chatd.signing_in.service import SigningIn

__all__ = [
    "LIFETIME_S",
    "LOGIN_PATH",
    "Begun",
    "SignInFailed",
    "SignedInNow",
    "SigningIn",
    "flow_of",
]
