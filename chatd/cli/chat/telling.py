"""One turn's events, told: every piece of text once, also when a stream begins again."""

from typing import Any, Protocol

from chatd.cli.chat import plans
from chatd.cli.chat.events import Event
from chatd.cli.chat.wording import short


class Screen(Protocol):
    def wait(self, why: str) -> None: ...
    def rest(self) -> None: ...
    def text(self, piece: str) -> None: ...
    def line(self, text: str, style: str = "") -> None: ...
    def aside(self, text: str, style: str = "yellow") -> None: ...
    def ask(self, prompt: str) -> str: ...


class Telling:
    """Takes the events of one turn in their order."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._told = ""
        """Text of the running step that is on the screen."""
        self._text = ""
        """Text of the running step as the server tells it: again from the start after a reset."""
        self._results = set[str]()
        self._messages = 0

    def take(self, event: Event) -> None:
        data = event.data
        match event.name:
            case "turn":
                queued = data["turn"]["status"] == "queued"
                first = "the turn before this one" if queued else "a worker"
                self._screen.wait(f"waiting for {first}")
            case "status" if data["status"] == "running":
                self._screen.wait("thinking")
            case "message_part":
                self._part(data["part"])
            case "message":
                self._message(data["message"])
            case "preview_reset":
                self._text = ""
            case "status" if data["status"] == "interrupted":
                self._screen.aside("Stopped.")
            case "lost":
                self._screen.wait("connection lost, trying again")
            case _:
                self._aside(event.name, data)

    def _part(self, part: dict[str, Any]) -> None:
        match part["type"]:
            case "text":
                self._say(part["text"])
            case "tool-call":
                if part.get("tool_name"):
                    self._screen.wait(f"calling {part['tool_name']}")
                if part.get("intent"):
                    self._screen.wait(_label(part))
            case "tool-result" if "progress" in part:
                self._progress(part["tool_name"], part["progress"])
            case "tool-result":
                self._result(part)
            case _:
                self._screen.wait("thinking")

    def _progress(self, tool: str, progress: dict[str, Any]) -> None:
        done, total = progress["progress"], progress["total"]
        share = f"{min(max(done / total, 0), 1):.0%}" if total and total > 0 else f"{done:g}"
        self._screen.wait(f"running {tool}: {share} {progress['message']}")

    def _say(self, piece: str) -> None:
        self._text += piece
        if self._told.startswith(self._text):
            return
        if not self._text.startswith(self._told):
            # Another answer than the one that was withdrawn.
            self._screen.rest()
            self._told = ""
        self._screen.text(self._text[len(self._told) :])
        self._told = self._text

    def _message(self, message: dict[str, Any]) -> None:
        # A stream that begins again may repeat the last one.
        if message["id"] <= self._messages:
            return
        self._messages = message["id"]
        if message["role"] == "assistant":
            self._step(message["content"])
        for part in message["content"]:
            if part["type"] == "tool-result":
                self._result(part)

    def _step(self, parts: list[dict[str, Any]]) -> None:
        """A committed answer: what of it was not shown yet, and the calls it makes."""
        self._text = ""
        self._say("".join(part["text"] for part in parts if part["type"] == "text"))
        self._told = self._text = ""
        self._screen.rest()
        calls = [part for part in parts if part["type"] == "tool-call"]
        for call in calls:
            told = plans.shown(call)
            if told is not None:
                self._screen.line(told)
            else:
                why = f"{_label(call)}: " if call.get("intent") else ""
                made = f"{call['tool_name']} {short(call['args'])}"
                self._screen.line(f"→ {why}{made}", style="cyan")
        if calls:
            self._screen.wait(f"running {', '.join(map(_label, calls))}")

    def _result(self, part: dict[str, Any]) -> None:
        if part["tool_call_id"] in self._results:
            return
        self._results.add(part["tool_call_id"])
        told = plans.TOLD.get(part["tool_name"])
        if told is not None and not part["is_error"]:
            self._screen.line(told, style="bold")
            return
        media = "".join(f" [{each['media_type']}]" for each in part.get("media", ()))
        style = "red" if part["is_error"] else "green"
        self._screen.line(f"← {part['tool_name']} {short(part['result'])}{media}", style=style)
        self._screen.wait("thinking")

    def _aside(self, name: str, data: dict[str, Any]) -> None:
        match name:
            case "notice" if data["code"] == "server_log":
                self._screen.aside(short(f"{data['logger']}: {data['message']}"), style="dim")
            case "notice" if data["code"] == "compacting":
                self._screen.wait("summing up")
                self._screen.aside(data["message"], style="dim")
            case "notice":
                link = f" {data['connect_url']}" if data.get("connect_url") else ""
                self._screen.aside(f"Note: {data['message'] or data['code']}{link}")
            case "retry":
                retry = data["retry"]
                seconds = retry["delay_ms"] / 1000
                self._screen.aside(f"{retry['error']['message']} Again in {seconds:.1f} s.")
            case "chat_error":
                error = data["error"]
                told = " ".join(filter(None, (error["message"], error.get("detail", ""))))
                self._screen.aside(f"Error ({error['kind']}): {told}", style="red")
            case "history_reset":
                self._screen.aside(
                    "The chat was changed elsewhere; this turn is part of it no more."
                )
            case _:
                pass


def _label(call: dict[str, Any]) -> str:
    """What the model says that the call is for, else the tool's name."""
    return short(call.get("intent") or call["tool_name"])
