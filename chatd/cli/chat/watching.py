"""One turn, watched to its end: shown, answered where it asks, stopped by Ctrl-C."""

from collections.abc import Callable, Generator
from contextlib import closing
from enum import Enum
from typing import Any

import orjson
import typer

from chatd.cli.chat import plans
from chatd.cli.chat.asking import Asking
from chatd.cli.chat.conversation import Conversation
from chatd.cli.chat.events import Event
from chatd.cli.chat.screen import Screen
from chatd.cli.chat.telling import Telling

Show = Callable[[Event], None]


class Ended(Enum):
    """How it went, as far as we watched."""

    COMPLETED = "completed"
    FAILED = "failed"
    WAITING = "waiting"
    """For an answer that nobody here gives."""
    STOPPED = "stopped"
    LEFT = "left"
    """By Ctrl-C, while it goes on."""

    @property
    def status(self) -> int:
        """The command's exit status; 130 is 128 and SIGINT's number, as shells have it."""
        return {"completed": 0, "failed": 1, "waiting": 3}.get(self.value, 130)


_STATUSES = {"completed": Ended.COMPLETED, "interrupted": Ended.STOPPED}


class Watching:
    """`show` takes the events instead of the screen."""

    def __init__(
        self, conversation: Conversation, screen: Screen, asking: Asking, show: Show | None = None
    ) -> None:
        self._conversation = conversation
        self._screen = screen
        self._asking = asking
        self._shows = show
        self._plan: str | None = None
        """The id of the last plan that was shown."""

    def say(self, body: dict[str, Any]) -> Ended:
        """Send the message and watch its turn. Raises what `Conversation.follow` does."""
        return self._through(self._conversation.say(body))

    def approve_plan(self, words: str) -> Ended:
        """The same for the turn that carries the newest plan out: the one that was shown."""
        return self._through(self._conversation.approve_plan(plans.approving(words, self._plan)))

    def _through(self, events: Generator[Event]) -> Ended:
        show = self._shows or Telling(self._screen).take
        try:
            return self._watch(events, show)
        except KeyboardInterrupt:
            return self._stop(show)
        finally:
            self._screen.rest()

    def _stop(self, show: Show) -> Ended:
        """Once stops the turn, twice leaves it to itself."""
        try:
            self._screen.aside("Stopping; Ctrl-C again leaves.", style="dim")
            if self._conversation.stop():
                return self._watch(self._conversation.follow(), show)
        except KeyboardInterrupt:
            pass
        self._screen.aside("Not watching any longer.")
        return Ended.LEFT

    def _watch(self, events: Generator[Event], show: Show) -> Ended:
        status = ""
        with closing(events):
            for event in events:
                show(event)
                if event.name == "message":
                    self._plan = plans.proposed(event.data["message"]) or self._plan
                status = event.data.get("status", "") if event.name == "status" else status
                if event.name == "action_required" and not self._answer(event):
                    return Ended.WAITING
        return _STATUSES.get(status, Ended.FAILED)

    def _answer(self, event: Event) -> bool:
        asked = event.data["open_items"]
        if self._asking.answer(asked):
            return True
        if self._shows is None:
            self._asking.tell(asked)
        return False


def print_event(event: Event) -> None:
    """A line of JSON."""
    if event.id:
        typer.echo(orjson.dumps({"event": event.name, "id": event.id, "data": event.data}))
