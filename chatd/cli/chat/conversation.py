"""The client's side of a chat: send a message once, follow its turn through lost connections."""

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import httpx2
import orjson

from chatd.cli.chat.events import Event, parse
from chatd.core.errors import ChatdError
from chatd.core.turns import ENDED

PREFIX = "/api/experimental"
CONNECT_S = 10
SILENCE_S = 45
"""The server says something every 15 s, if only a comment."""

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 5.0
GIVE_UP_S = 60.0
"""Without a single event."""

LATER = {429, 502, 503, 504}

_ENDED = {status.value for status in ENDED}
_EVENTS = {"Accept": "text/event-stream"}


class Refused(ChatdError):
    """The server said no; the message is its own."""

    code = "refused"

    def __init__(self, message: str, *, detail: str = "", answered: int = 0) -> None:
        super().__init__(message, detail=detail)
        self.answered = answered
        """The HTTP status it came with."""


class Unreachable(ChatdError):
    """Nobody answers, or not for long enough."""

    code = "unreachable"


class _TryAgain(Exception):
    """The server cannot answer now."""


class Conversation:
    """One chat, from the first message on. `chat_id` is None until there is one."""

    def __init__(self, url: str, token: str, chat_id: str | None = None) -> None:
        self.chat_id = chat_id
        self._url = url
        self._turn: _Turn | None = None
        self._http = httpx2.Client(
            base_url=url.rstrip("/") + PREFIX,
            headers={"Authorization": f"Bearer {token}"},
            timeout=httpx2.Timeout(CONNECT_S, read=SILENCE_S),
            # What runs on this machine is not behind a proxy.
            trust_env=httpx2.URL(url).host not in {"127.0.0.1", "localhost", "::1"},
        )

    def close(self) -> None:
        self._http.close()

    def models(self) -> list[dict[str, Any]]:
        """What there is to choose from. Raises `Refused`, `Unreachable`."""
        with self._reached():
            answer = self._http.get("/chats/models")
        if not answer.is_success:
            raise _refusal(answer)
        return [model for provider in answer.json()["providers"] for model in provider["models"]]

    def say(self, body: dict[str, Any]) -> Generator[Event]:
        """Send a message and yield its turn's events; see `follow`."""
        self._turn = _Turn(self.chat_id, body)
        return self.follow()

    def approve_plan(self, body: dict[str, Any]) -> Generator[Event]:
        """Have the chat's newest plan carried out, and yield that turn's events; see `follow`."""
        if self.chat_id is None:
            raise Refused("There is no plan to approve.", detail="Nothing was said yet.")
        self._turn = _Turn(self.chat_id, body, "plan/approve")
        return self.follow()

    def follow(self) -> Generator[Event]:
        """Yield the turn's events from where we left it to its last one.

        Nothing is connected while it holds an `action_required`, and it goes on after it. Raises
        `Refused`, and `Unreachable` when a connection cannot be had again.
        """
        assert self._turn is not None, "there is a turn once something was said"
        turn = self._turn
        turn.asked = None
        patience = _Patience()
        while True:
            try:
                for event in self._events(turn):
                    patience = _Patience()
                    self.chat_id = turn.chat_id
                    yield event
            except NEVER_SENT as error:
                if turn.unsent:
                    raise self._nobody() from error
            except (httpx2.TransportError, _TryAgain):
                turn.unsent = False
            if turn.ended:
                return
            if turn.asked is not None:
                asked, turn.asked = turn.asked, None
                yield asked
                patience = _Patience()
                continue
            patience.check()
            yield Event("lost", {})
            patience.sleep()

    def approve(self, item_id: str, decision: str, reason: str = "") -> None:
        """Like all answers: raises `Refused`, `Unreachable`."""
        self._answer(f"approvals/{item_id}", {"decision": decision, "reason": reason})

    def fill_in(self, item_id: str, action: str, content: dict[str, Any] | None = None) -> None:
        """Answer a server's question; `content` goes with `accept`."""
        self._answer(f"elicitations/{item_id}", {"action": action, "content": content})

    def connect_url(self, server_id: str) -> str:
        """A page, for this user and once, that connects their account to a server."""
        return self._post(f"/mcp/servers/{server_id}/oauth2/connect", {})["connect_url"]

    def skip_account(self, item_id: str) -> None:
        """Go on without connecting one."""
        self._answer(f"auth/{item_id}", {"action": "skip"})

    def give_results(self, results: list[dict[str, Any]]) -> None:
        """Those of all open calls of the client's own tools."""
        self._answer("tool-results", {"results": results})

    def stop(self) -> bool:
        """Stop the turn, or take it out of the queue; False: we do not know it yet.

        Raises `Refused`, `Unreachable`.
        """
        turn_id = self._turn.id if self._turn is not None else None
        if turn_id is None:
            return False
        with self._reached():
            dequeued = self._http.delete(f"/chats/{self.chat_id}/queue/{turn_id}")
        if not dequeued.is_success:
            self._answer("interrupt", {"turn_id": turn_id})
        return True

    def _answer(self, path: str, body: dict[str, Any]) -> None:
        self._post(f"/chats/{self.chat_id}/{path}", body)

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        with self._reached():
            answer = self._http.post(path, json=body)
        if not answer.is_success:
            raise _refusal(answer)
        return orjson.loads(answer.content) if answer.content else None

    def _events(self, turn: "_Turn") -> Iterator[Event]:
        with self._http.stream(**turn.request()) as answer:
            if answer.status_code in LATER and not turn.refusable(answer.status_code):
                raise _TryAgain
            if not answer.is_success:
                answer.read()
                raise _refusal(answer)
            turn.unsent = False
            for event in parse(answer.iter_bytes()):
                if turn.concerns(event):
                    yield event
                if turn.ended or turn.asked is not None:
                    return

    @contextmanager
    def _reached(self) -> Generator[None]:
        try:
            yield
        except httpx2.TransportError as error:
            raise self._nobody() from error

    def _nobody(self) -> Unreachable:
        return Unreachable(f"Nobody answers at {self._url}.", detail="Is `chatd dev` running?")


NEVER_SENT = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.UnsupportedProtocol,
    httpx2.LocalProtocolError,
)
"""Nothing reached a server, and will not the next time either."""


class _Patience:
    """How long we have been trying, since something was heard last."""

    def __init__(self) -> None:
        self._quiet_since = time.monotonic()
        self._pause_s = FIRST_PAUSE_S

    def check(self) -> None:
        """Raises `Unreachable` when it has come to an end."""
        if time.monotonic() - self._quiet_since > GIVE_UP_S:
            raise Unreachable("The connection is lost.", detail="The turn goes on without us.")

    def sleep(self) -> None:
        time.sleep(self._pause_s)
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)


class _Turn:
    """How far we are with one message: what to ask for next, and which events are about it."""

    def __init__(
        self, chat_id: str | None, body: dict[str, Any], command: str = "messages"
    ) -> None:
        self.chat_id = chat_id
        self.unsent = True
        self.ended = False
        self.asked: Event | None = None
        """What it waits for, until that is told."""
        self.id: str | None = None
        self._path = f"/chats/{chat_id}/{command}" if chat_id else "/chats"
        self._body = body
        # The same message again, when we do not know whether the first one arrived.
        self._key = uuid4().hex
        self._cursor = ""

    def request(self) -> dict[str, Any]:
        if self.id is None:
            headers = _EVENTS | {"Idempotency-Key": self._key}
            return {"method": "POST", "url": self._path, "json": self._body, "headers": headers}
        headers = _EVENTS | {"Last-Event-ID": self._cursor}
        return {"method": "GET", "url": f"/chats/{self.chat_id}/stream", "headers": headers}

    def refusable(self, status: int) -> bool:
        """A full queue is an answer, not a reason to knock again and again."""
        return status == httpx2.codes.TOO_MANY_REQUESTS.value and self.id is None

    def concerns(self, event: Event) -> bool:
        """Whether the event is about this turn; takes note of where it leaves us."""
        self._cursor = event.id or self._cursor
        if self.id is None and event.name == "turn":
            self.id = event.data["turn"]["id"]
            self.chat_id = event.data["turn"]["chat_id"]
            return True
        if event.data.get("turn_id") not in (None, self.id):
            return False
        match event.name:
            case "status":
                self.ended = event.data["status"] in _ENDED
            case "action_required" if _for_people(event.data):
                self.asked = event
                return False
            case "history_reset":
                self.ended = True
            case "chat_error":
                # Without a turn it is about the stream: we may not follow any longer.
                self.ended = event.data["turn_id"] is None
            case _:
                pass
        return True


def _for_people(asked: dict[str, Any]) -> bool:
    """A sub-agent answers by itself."""
    return any(item["kind"] != "child" for item in asked["open_items"])


def _refusal(answer: httpx2.Response) -> Refused:
    status = answer.status_code
    try:
        problem = orjson.loads(answer.content)
        lines = [problem["detail"]]
        lines += [f"{each['field']}: {each['detail']}" for each in problem["validations"]]
        detail = "\n".join(filter(None, lines))
        return Refused(problem["message"], detail=detail, answered=status)
    except (ValueError, KeyError, TypeError):
        return Refused(f"The server answers {status}; is it a chatd?", answered=status)
