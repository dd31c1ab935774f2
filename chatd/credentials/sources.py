"""Every kind of tokens there is. A new one is a class and its name here."""

from chatd.core.servers import McpAuth
from chatd.credentials.connected import Connection
from chatd.credentials.login import Exchanged, Login
from chatd.credentials.service import Service
from chatd.credentials.source import Source

SOURCES: tuple[type[Source], ...] = (Connection, Login, Exchanged, Service)


def source_of(auth: McpAuth) -> type[Source] | None:
    """None for credentials that are no tokens."""
    return next((source for source in SOURCES if source.serves(auth)), None)
