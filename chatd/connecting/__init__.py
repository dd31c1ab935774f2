"""Connecting users to MCP servers: discovery and registration, the flow there and back."""

from typing import NamedTuple

from chatd.connecting.connect import Connecting
from chatd.connecting.disconnecting import Disconnecting
from chatd.connecting.discovering import (
    Discovering,
    client_metadata,
    configured,
    set_found,
)
from chatd.connecting.renewing import Renewing
from chatd.outbound import Outbound
from chatd.store.db import Database
from chatd.store.secrets import KeyRing

__all__ = ["OAuth", "client_metadata", "configured", "oauth", "set_found"]


class OAuth(NamedTuple):
    """All that the front door needs of it."""

    discovering: Discovering
    connecting: Connecting
    disconnecting: Disconnecting
    access_url: str
    """Where browsers find us; without a slash at its end."""


def oauth(db: Database, keys: KeyRing, outbound: Outbound, access_url: str) -> OAuth:
    discovering = Discovering(db, keys, outbound, access_url)
    renewing = Renewing(db, keys, discovering)
    connecting = Connecting(db, keys, outbound, access_url, renewing)
    return OAuth(discovering, connecting, Disconnecting(db, keys, outbound), access_url)
