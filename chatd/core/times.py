"""Instants as text: one spelling everywhere, so that equal states are equal bytes."""

from datetime import datetime


def rfc3339(instant: datetime | str | None) -> str | None:
    """RFC 3339 in the instant's own offset (the database's: UTC).

    A string is PostgreSQL's JSON spelling of a timestamp, which drops trailing zeros.
    """
    if isinstance(instant, str):
        instant = datetime.fromisoformat(instant)
    return instant.isoformat() if instant is not None else None
