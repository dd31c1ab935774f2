"""Accounts that the turn's user has to connect: waited for at its beginning, told of later."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from chatd.core.accounts import MORE_ACCESS, connect_path, reason_of, sentence
from chatd.core.errors import Unavailable
from chatd.core.items import AUTH_S, NewItem
from chatd.core.servers import McpServer, UserAuth
from chatd.core.tools import ToolCall, ToolResult
from chatd.core.work import LoadedTurn, PlannedCall
from chatd.loop import Parked
from chatd.store.accounts import read_account
from chatd.stream.publisher import TurnFeed
from chatd.turn.deps import TurnDeps
from chatd.turn.toolbox import Toolbox

_RECONNECT = (
    "The user has to connect their account at this server again, and has been told so. Go on"
    " without it; do not repeat the call before they have."
)
_ANEW = "The user has connected their account anew meanwhile: the call can be repeated."
_MORE = (
    "The call needs more access than the user has given. They have been told that they can connect"
    " their account once more to allow it. Go on without it; do not repeat the call before."
)


def may_wait(turn: LoadedTurn) -> bool:
    """Whether its client wants to be asked, and has not been: parking is a turn's first commit.

    Nobody looks at a sub-agent, and a summary needs no tools.
    """
    wanted = turn.on_auth_required == "wait" and turn.kind == "message"
    return wanted and turn.parent_chat_id is None and turn.claim.commits == 0


def asked_for(servers: Sequence[McpServer]) -> Parked:
    """An open item for each: no call's, so they stand before the first step."""
    waiting = [
        (PlannedCall(ToolCall("", "", ""), 0, place, None), _item(server, server.auth))
        for place, server in enumerate(servers, 1)
        if isinstance(server.auth, UserAuth)
    ]
    return Parked(0, [], waiting)


def _item(server: McpServer, auth: UserAuth) -> NewItem:
    data = {
        "server_id": str(server.id),
        "server": server.slug,
        "display_name": server.display_name,
        "reason": reason_of(auth) or "not_connected",
        "message": sentence(auth),
        "connect_url": connect_path(auth.type, server.id),
    }
    known = str(auth.connection_id) if auth.connection_id is not None else None
    return NewItem("auth", data, AUTH_S, {"connection_id": known})


async def replaced(deps: TurnDeps, toolbox: Toolbox, server: McpServer, result: ToolResult) -> bool:
    """Whether its user has another account at the server by now than the one that is no use:
    whoever only signs in once more has. Raises `LeaseLost`."""
    auth = server.auth
    if result.refused != "account" or not isinstance(auth, UserAuth):
        return False
    with suppress(Unavailable):
        if await read_account(deps.db, auth.connection_id) is None:
            await toolbox.reload()
    now = toolbox.configured(server).auth
    if not isinstance(now, UserAuth):
        return False
    return now.connected and now.connection_id != auth.connection_id


async def explained(
    deps: TurnDeps, toolbox: Toolbox, feed: TurnFeed, server: McpServer, result: ToolResult
) -> ToolResult:
    """A result of a server that did not take the user's token: the model reads what that means, the
    user is told what to do, and the next step is offered what is left. Raises `LeaseLost`."""
    auth = server.auth
    if result.refused is None or not isinstance(auth, UserAuth):
        return result
    if await replaced(deps, toolbox, server, result):
        return replace(result, text=f"{result.text.rstrip('.')}. {_ANEW}")
    with suppress(Unavailable):
        account = await read_account(deps.db, auth.connection_id)
        if result.refused == "access":
            wanted = account is not None and account.wants_more
            return _told(toolbox, feed, server, result, MORE_ACCESS, _MORE) if wanted else result
        if account is None or account.needs_reauth is not None:
            await toolbox.reload()
            now = toolbox.configured(server).auth
            auth = now if isinstance(now, UserAuth) and not now.connected else auth
    return _told(toolbox, feed, server, result, sentence(auth), _RECONNECT)


def _told(
    toolbox: Toolbox,
    feed: TurnFeed,
    server: McpServer,
    result: ToolResult,
    user: str,
    model: str,
) -> ToolResult:
    notice = toolbox.tell_account(server, user)
    if notice is not None:
        feed.event("notice", dict(notice))
    return replace(result, text=f"{result.text.rstrip('.')}. {model}")
