"""A flow over a WebSocket: the same events as server-sent ones, each a JSON text."""

import asyncio
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.websockets import WebSocket, WebSocketDisconnect

from chatd.api.auth import Signed
from chatd.api.fields import ChatId, MessageId
from chatd.api.flow import Ending, Flow
from chatd.api.frames import texts
from chatd.api.parts import PartsDep
from chatd.core.errors import Forbidden
from chatd.store.chats import require_chat

GOODBYE_S = 1.0

CODES = {
    Ending.OVER: 1000,
    Ending.SPOKE: 1003,
    Ending.REVOKED: 1008,
    Ending.DRAINING: 1012,
    Ending.SLOW: 1013,
}


async def known_origin(websocket: WebSocket, parts: PartsDep) -> None:
    """Browsers let any page open a WebSocket, and say which: only ours and the listed ones may."""
    origin = websocket.headers.get("origin")
    if origin is not None and origin not in parts.origins:
        raise Forbidden("This origin may not open a WebSocket here.")


router = APIRouter(dependencies=[Depends(known_origin)])


@router.websocket("/chats/{chat}/stream")
async def follow_chat(
    websocket: WebSocket,
    chat: ChatId,
    actor: Signed,
    parts: PartsDep,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
    after_id: Annotated[MessageId | None, Query()] = None,
) -> None:
    """What fails before the upgrade is a plain HTTP answer."""
    await require_chat(parts.db, actor.user_id, chat)
    permit = parts.permits.admit(actor)
    await send_flow(
        websocket, await parts.streams.follow(chat, permit, cursor=cursor, after_id=after_id)
    )


@router.websocket("/chats/watch")
async def watch_chats(websocket: WebSocket, actor: Signed, parts: PartsDep) -> None:
    await send_flow(websocket, await parts.watch(actor))


async def send_flow(websocket: WebSocket, flow: Flow) -> None:
    """Ends with the flow, when the client hangs up, and when it says anything: it has no say."""

    async def put(chunk: bytes, _more: bool) -> None:
        try:
            for message in texts(chunk):
                await websocket.send_text(message)
        except WebSocketDisconnect as error:
            raise ConnectionError from error

    try:
        await websocket.accept()
        ending = await flow.run(put, _gone(websocket))
        if ending in CODES:
            # A reader that takes nothing does not take this either: the connection closes without.
            with suppress(TimeoutError, WebSocketDisconnect):
                async with asyncio.timeout(GOODBYE_S):
                    await websocket.close(CODES[ending])
    finally:
        await flow.close()


async def _gone(websocket: WebSocket) -> Ending:
    message = await websocket.receive()
    return Ending.SPOKE if message["type"] == "websocket.receive" else Ending.HUNG_UP
