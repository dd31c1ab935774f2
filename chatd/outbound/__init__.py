"""The one way out: HTTP clients that dial only checked addresses."""

from chatd.outbound.dial import BlockedAddress
from chatd.outbound.factory import Outbound
from chatd.outbound.guard import Network

__all__ = ["BlockedAddress", "Network", "Outbound"]
