"""Ids made by us."""

from uuid import UUID

import uuid_utils.compat as uuid_utils


def new_id() -> UUID:
    """A UUIDv7 (RFC 9562): new rows land at the end of their index."""
    return uuid_utils.uuid7()
