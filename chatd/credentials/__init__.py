"""The credentials of MCP servers: what goes into each request, and tokens that stay valid."""

from chatd.credentials.failures import NotConnected, NoToken
from chatd.credentials.headers import Credentials
from chatd.credentials.keeping import Keeper
from chatd.credentials.tokens import Pace, TokenService

__all__ = ["Credentials", "Keeper", "NoToken", "NotConnected", "Pace", "TokenService"]
