"""What is told of a session's connection: how its beginning went, and its end."""

import asyncio
from collections.abc import Callable

from chatd.core.connections import ConnectionEvent, ConnectionOutcome
from chatd.mcp.errors import ServerFailed
from chatd.mcp.session import Session

Tell = Callable[[ConnectionEvent], None]

_OUTCOMES: dict[str, ConnectionOutcome] = {
    "timeout": "timeout",
    "refused": "refused",
    "auth_required": "unauthorized",
    "forbidden": "unauthorized",
}
_MAX_MS = 2**31 - 1


def follow(session: Session, tell: Tell) -> None:
    """Tells once of the attempt to connect and, if there was a connection, once of its end."""
    clock = asyncio.get_running_loop().time
    began = clock()

    def told(outcome: ConnectionOutcome, code: str = "") -> None:
        lasted = min(round((clock() - began) * 1000), _MAX_MS)
        server, user_id = session.server, session.principal.user_id
        count = session.tool_count
        tell(ConnectionEvent(server.id, server.slug, user_id, outcome, code, lasted, count))

    def ready(attempt: asyncio.Future[None]) -> None:
        nonlocal began
        failure = attempt.exception()
        if failure is None:
            told("connected")
            began = clock()
            session.owner.add_done_callback(lambda _: told("disconnected"))
        elif isinstance(failure, ServerFailed):
            # One that nobody wanted any more was not the server's failure.
            given_up = session.retired and failure.reason != "timeout"
            reason = "closed" if given_up else failure.reason
            told(_OUTCOMES.get(reason, "failed"), reason)

    session.ready.add_done_callback(ready)
