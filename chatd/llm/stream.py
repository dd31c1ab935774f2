"""One attempt at a model call: the request, its network reads, their deltas."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any
from uuid import uuid4

import httpx2

from chatd import telemetry
from chatd.core.deltas import Delta
from chatd.core.models import Model, ReasoningEffort
from chatd.core.tools import OfferedTool
from chatd.llm.answer import Answer
from chatd.llm.clients import ModelClient
from chatd.llm.failures import NoModelApi, StreamMalformed, StreamSilent
from chatd.llm.request import ToolChoice, encode, request_body
from chatd.llm.sse import MAX_EVENT

SILENCE_SECONDS = 600.0
TAIL_SECONDS = 10.0
"""How long usage or the end may take after the last chunk; then the answer counts as complete."""
_DRAIN_SECONDS = 0.1
"""How long the end of the body may take after `[DONE]`, which saves the connection."""


def _new_id() -> str:
    return f"call_{uuid4().hex}"


async def complete(
    client: ModelClient,
    model: Model,
    messages: Sequence[dict[str, Any]],
    tools: Sequence[OfferedTool],
    *,
    effort: ReasoningEffort | None = None,
    tool_choice: ToolChoice | None = None,
    extra: Mapping[str, Any] | None = None,
    silence_s: float = SILENCE_SECONDS,
    tail_s: float = TAIL_SECONDS,
    new_id: Callable[[], str] = _new_id,
) -> AsyncGenerator[list[Delta]]:
    """A list of deltas per network read; the last one of the last list is Finished.

    `effort` is what was asked; the model's limits apply. `extra` goes into the body. Close the
    generator (`aclosing`): that closes the connection, and so stops the provider. Read it to its
    end, and the connection is kept. Raises the client's errors and those of chatd.llm.failures.
    """
    body = request_body(model, messages, tools, asked_effort=effort, tool_choice=tool_choice)
    content = encode({**body, **extra} if extra else body)
    telemetry.labelled(telemetry.PROMPT_BYTES, model.provider, model.name).observe(len(content))
    response = await client.post(content, silence_s)
    answer = Answer(new_id, frozenset(tool.name for tool in tools if tool.model_intent))
    reads = _Reads(response, silence_s, tail_s)
    try:
        if _media_type(response) == "text/html":
            raise NoModelApi
        if _media_type(response) == "application/json":
            yield answer.whole(await reads.whole()) + answer.end()
            return
        while not answer.done and (read := await reads.next()) is not None:
            deltas = answer.feed(read)
            reads.note(event=deltas is not None, ended=bool(answer.reason))
            if deltas:
                yield deltas
        yield answer.end()
        await reads.drain()
    finally:
        await reads.aclose()


def _media_type(response: httpx2.Response) -> str:
    return response.headers.get("content-type", "").partition(";")[0].strip().lower()


class _Reads:
    """The network reads of a response, under the silence guard."""

    def __init__(self, response: httpx2.Response, silence_s: float, tail_s: float) -> None:
        self._response = response
        self._reads = response.aiter_bytes()
        self._silence_s = silence_s
        self._tail_s = tail_s
        self._now = asyncio.get_running_loop().time
        self._heard = self._now()
        self._tail: float | None = None
        self._deadline: float | None = None

    async def next(self) -> bytes | None:
        """None at the end; a time-out after the last chunk is an end too.

        Raises StreamSilent, or ReadTimeout of the transport, which means the same.
        """
        if self._deadline is None:
            return await anext(self._reads, None)
        try:
            async with asyncio.timeout_at(self._deadline):
                return await anext(self._reads, None)
        except TimeoutError:
            if self._tail is not None:
                return None
            raise StreamSilent(self._silence_s) from None

    def note(self, *, event: bool, ended: bool) -> None:
        """Whether the last read held an event, and whether the last chunk has come.

        The transport's read time-out guards a stream of events at no cost; after a read of
        comments alone it would begin anew, so a deadline of our own takes over.
        """
        if event:
            self._heard = self._now()
        if ended and self._tail is None:
            self._tail = self._now() + self._tail_s
        self._deadline = self._tail or (None if event else self._heard + self._silence_s)

    async def whole(self) -> bytes:
        pieces: list[bytes] = []
        weight = 0
        async for piece in self._reads:
            weight += len(piece)
            if weight > MAX_EVENT:
                raise StreamMalformed(f"the answer is larger than {MAX_EVENT} bytes")
            pieces.append(piece)
        return b"".join(pieces)

    async def drain(self) -> None:
        with suppress(TimeoutError, httpx2.HTTPError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                async for _ in self._reads:
                    pass

    async def aclose(self) -> None:
        await self._reads.aclose()
        await self._response.aclose()
