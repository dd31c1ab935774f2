"""What a frontend does: it posts, follows a stream, hangs up and comes back."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import httpx2
import orjson

from tests.e2e.view import ENDED, Event, View
from tests.waiting import until

BASE = "/api/experimental"
WITHIN_S = 40.0

T = TypeVar("T")
Events = AsyncGenerator[Event]


@dataclass(frozen=True, slots=True)
class Posted:
    """A turn that was accepted, and the whole answer to the request."""

    chat_id: str
    turn_id: str
    body: dict[str, Any]


class Client:
    """One user at one front door."""

    def __init__(self, url: str, token: str) -> None:
        self.http = httpx2.AsyncClient(
            base_url=url + BASE,
            headers={"Authorization": f"Bearer {token}"},
            # Reading the system's certificates would take longer than most requests.
            verify=False,
            trust_env=False,
            timeout=30,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    async def get(self, path: str) -> Any:
        answer = await self.http.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def post(self, path: str, body: Any, **headers: str) -> Any:
        answer = await self.http.post(path, json=body, headers=headers)
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def patch(self, path: str, body: Any) -> None:
        answer = await self.http.patch(path, json=body)
        assert answer.is_success, answer.text

    async def delete(self, path: str) -> None:
        answer = await self.http.delete(path)
        assert answer.is_success, answer.text

    async def create(self, *lines: str, **fields: Any) -> Posted:
        """A new chat; the lines are what the scripted model does."""
        body = await self.post("/chats", message(*lines, **fields))
        return Posted(body["id"], body["turn"]["id"], body)

    async def say(self, chat_id: str, *lines: str, **fields: Any) -> Posted:
        body = await self.post(f"/chats/{chat_id}/messages", message(*lines, **fields))
        return Posted(chat_id, body["turn"]["id"], body)

    async def turn(self, posted: Posted) -> Any:
        return await self.get(f"/chats/{posted.chat_id}/turns/{posted.turn_id}")

    async def messages(self, posted: Posted) -> list[Any]:
        """The turn's, oldest first."""
        found = await self.get(f"/chats/{posted.chat_id}/messages?limit=200")
        return [
            message for message in reversed(found["messages"])
            if message["turn_id"] == posted.turn_id
        ]  # fmt: skip

    async def ended(self, posted: Posted, *, within_s: float = WITHIN_S) -> Any:
        """The turn, as soon as it is over."""

        async def over() -> Any:
            turn = await self.turn(posted)
            return turn if turn["status"] in ENDED else None

        return await until(over, within_s)

    async def run(self, *lines: str, **fields: Any) -> tuple[Any, list[Any]]:
        """A new chat's first turn from beginning to end, with its messages."""
        posted = await self.create(*lines, **fields)
        return await self.ended(posted), await self.messages(posted)

    async def screen(self, chat_id: str) -> bytes:
        """What somebody sees who opens the chat now."""
        view = View()
        async with self.stream(chat_id) as found:
            async for event in found:
                view.take(event)
                if event.name == "status":
                    break
        return view.snapshot()

    @asynccontextmanager
    async def stream(self, chat_id: str, cursor: str | None = None) -> AsyncGenerator[Events]:
        """The chat's events; at the end of the block we hang up."""
        headers = {"Last-Event-ID": cursor} if cursor is not None else {}
        async with self.stream_at(f"/chats/{chat_id}/stream", **headers) as found:
            yield found

    @asynccontextmanager
    async def stream_at(self, path: str, **headers: str) -> AsyncGenerator[Events]:
        async with self.http.stream("GET", path, headers=headers, timeout=None) as response:
            assert response.status_code == 200, await response.aread()
            yield events(response)

    @asynccontextmanager
    async def streamed(self, path: str, body: Any, **headers: str) -> AsyncGenerator[Events]:
        """The events of a turn that is posted to be followed."""
        asked = headers | {"Accept": "text/event-stream"}
        async with self.http.stream("POST", path, json=body, headers=asked) as response:
            assert response.status_code == 201, await response.aread()
            yield events(response)

    @asynccontextmanager
    async def watching(self, chat_id: str) -> AsyncGenerator["Watch"]:
        """An open tab: follows the chat for as long as the block."""
        async with self.stream(chat_id) as found:
            watch = Watch(found)
            task = asyncio.create_task(watch.run())
            try:
                yield watch
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


class Watch:
    """A reader in the background, and what it has made of the stream so far."""

    def __init__(self, stream: Events) -> None:
        self.view = View()
        self.events: list[Event] = []
        self._stream = stream
        self._news = asyncio.Condition()
        self._failure: BaseException | None = None

    async def run(self) -> None:
        try:
            async for event in self._stream:
                async with self._news:
                    self.events.append(event)
                    self.view.take(event)
                    self._news.notify_all()
            raise AssertionError("the stream ended")
        except Exception as error:
            async with self._news:
                self._failure = error
                self._news.notify_all()

    async def until(self, check: Callable[[View], T], within_s: float = WITHIN_S) -> T:
        """What `check` says of the view, as soon as that is true."""

        def done() -> bool:
            return bool(self._failure or check(self.view))

        try:
            async with self._news:
                await asyncio.wait_for(self._news.wait_for(done), within_s)
        except TimeoutError:
            raise AssertionError(f"not in {within_s} s; the view: {self.view}") from None
        if self._failure is not None:
            raise self._failure
        return check(self.view)

    async def over(self, turn_id: str, within_s: float = WITHIN_S) -> bytes:
        """What is left on the screen when the turn has ended."""
        await self.until(lambda view: view.ended(turn_id), within_s)
        return self.view.snapshot()


async def events(response: httpx2.Response) -> Events:
    """The events of a response, comments left out."""
    waiting = b""
    async for data in response.aiter_raw():
        *blocks, waiting = (waiting + data).split(b"\n\n")
        for block in blocks:
            if not block.startswith(b":"):
                fields = dict(line.split(b": ", 1) for line in block.split(b"\n"))
                yield Event(
                    fields[b"id"].decode(), fields[b"event"].decode(), orjson.loads(fields[b"data"])
                )


def message(*lines: str, **fields: Any) -> dict[str, Any]:
    """The body of a message that says these lines."""
    return {"content": [{"type": "text", "text": "\n".join(lines)}], **fields}


def call(tool: str, **arguments: Any) -> str:
    """The line that makes the scripted model call this tool."""
    return f"/call {tool} {orjson.dumps(arguments).decode()}"


def at_once(*lines: str) -> str:
    """The line that makes these calls together."""
    return "/call " + " & ".join(line.removeprefix("/call ") for line in lines)


def spoken(words: int) -> str:
    """What `/long` with so many words says."""
    return "".join(f"word{number} " for number in range(1, words + 1))
