"""Whose call it is that a server speaks about: what the SDK hands up finds its conversation."""

import asyncio
import logging
from typing import Any

from mcp.client.context import ClientRequestContext
from mcp_types import (
    ElicitRequestParams,
    ElicitRequestURLParams,
    ElicitResult,
    LoggingMessageNotificationParams,
)
from pydantic import ValidationError

from chatd.core.servers import Transport
from chatd.core.tools import JsonObject
from chatd.mcp.conversation import CANCEL, Conversation
from chatd.mcp.exchange import EXCHANGE

log = logging.getLogger(__name__)


class Hearing:
    """Over streamable HTTP what belongs to a call comes with the answer to its request.

    Over HTTP+SSE one channel serves all calls of a session: there it can only be told while one
    call runs alone, and no more once a call was given up, which the server may not have heard.
    """

    def __init__(self, transport: Transport) -> None:
        self._one_channel = transport == "sse"
        self._running: set[Conversation] = set()
        self._lost = False

    @property
    def confused(self) -> bool:
        """What the server says might belong to a call that was given up."""
        return self._lost or any(call.over for call in self._running)

    def follow(self, call: Conversation, task: asyncio.Task[Any]) -> None:
        """From now until the task is done the server may speak about this call."""
        if not self._one_channel:
            return

        def ended(task: asyncio.Task[Any]) -> None:
            self._running.discard(call)
            self._lost = self._lost or call.over or task.cancelled()

        self._running.add(call)
        task.add_done_callback(ended)

    async def elicit(
        self, context: ClientRequestContext, params: ElicitRequestParams
    ) -> ElicitResult:
        call = self._speaking()
        answer = CANCEL if call is None else await call.ask(_raw(params))
        try:
            return ElicitResult(action=answer.action, content=answer.content)
        except ValidationError:
            log.warning("An answer to an MCP server's form was not flat and became a cancel.")
            return ElicitResult(action="cancel")

    async def log(self, params: LoggingMessageNotificationParams) -> None:
        call = self._speaking()
        if call is not None:
            call.log(params.level, params.logger, params.data)

    def _speaking(self) -> Conversation | None:
        if not self._one_channel:
            # The SDK hands on what it reads from an answer in the context of its request.
            exchange = EXCHANGE.get(None)
            return exchange if isinstance(exchange, Conversation) else None
        alone = len(self._running) == 1 and not self.confused
        return next(iter(self._running)) if alone else None


def _raw(params: ElicitRequestParams) -> JsonObject:
    if isinstance(params, ElicitRequestURLParams):
        what = {"url": params.url, "elicitationId": params.elicitation_id}
    else:
        what = {"requestedSchema": params.requested_schema}
    return {"mode": params.mode, "message": params.message, **what}
