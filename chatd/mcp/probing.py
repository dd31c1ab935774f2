"""What trying a server out finds."""

from dataclasses import dataclass
from typing import Self

from chatd.mcp.errors import without
from chatd.mcp.listing import MAX_NAME, ToolList, visible
from chatd.mcp.session import Session


@dataclass(frozen=True, slots=True)
class Probed:
    """`name` and `version` as the server calls itself; empty when it does not say."""

    protocol_version: str
    name: str
    version: str
    listed: ToolList

    @classmethod
    def of(cls, session: Session, listed: ToolList) -> Self:
        info = session.server_info
        return cls(
            protocol_version=session.protocol_version,
            name=_shown(session, info.name) if info is not None else "",
            version=_shown(session, info.version) if info is not None else "",
            listed=listed,
        )


def _shown(session: Session, text: str) -> str:
    return visible(without(text, session.secrets), MAX_NAME)
