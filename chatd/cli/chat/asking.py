"""Answering what a turn waits for: by asking the person at the terminal, or as an option says."""

import json
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import orjson

from chatd.cli.chat import forms
from chatd.cli.chat.conversation import Refused, Unreachable
from chatd.cli.chat.telling import Screen
from chatd.cli.chat.wording import quoted, short

Item = dict[str, Any]
Approve = Literal["all", "none"]

SHOWN_LINES = 30
SHOWN_CHARACTERS = 3000
"""Of a call's arguments, before the person asks for the rest."""

MAX_REASON = 1000


class Answers(Protocol):
    """Where the answers go. Each raises `Refused`, `Unreachable`."""

    def approve(self, item_id: str, decision: str, reason: str = "") -> None: ...
    def fill_in(self, item_id: str, action: str, content: dict[str, Any] | None = None) -> None: ...
    def connect_url(self, server_id: str) -> str: ...
    def skip_account(self, item_id: str) -> None: ...
    def give_results(self, results: list[dict[str, Any]]) -> None: ...


class Asking:
    """`person`: somebody is there to be asked. `approve` decides approvals without asking."""

    def __init__(
        self, screen: Screen, answers: Answers, *, person: bool, approve: Approve | None = None
    ) -> None:
        self._screen = screen
        self._answers = answers
        self._person = person
        self._approve = approve
        self._decided = set[str]()

    def answer(self, asked: Sequence[Item]) -> bool:
        """Whether the turn may go on; False when something waits that nobody here answers.

        What the server does not take is said; what then still waits will be asked again.
        """
        calls = [item for item in asked if item["kind"] == "tool_result"]
        others = [item for item in asked if item["kind"] not in ("tool_result", "child")]
        try:
            answered = [self._one(item) for item in others]
            return all(answered) and self._results(calls)
        except EOFError:
            return False
        except (Refused, Unreachable) as error:
            self._screen.aside(f"{error.message} {error.detail}".strip(), style="red")
            return True

    def tell(self, asked: Sequence[Item]) -> None:
        """What waits, for whoever answers it elsewhere."""
        self._screen.aside("The turn waits for:")
        for item in asked:
            if item["kind"] != "child":
                said = item.get("message") or f"{item.get('tool_name')} {item.get('args')}"
                name = item["tool_call_id"] if item["kind"] == "tool_result" else item["id"]
                link = f" {item['connect_url']}" if item.get("connect_url") else ""
                self._screen.aside(f"  {item['kind']} {name}: {short(said)}{link}")

    def _one(self, item: Item) -> bool:
        match item["kind"]:
            case "approval":
                return self._approval(item)
            case "elicitation" if self._person:
                self._question(item)
                return True
            case "auth" if self._person:
                self._account(item)
                return True
            case _:
                return False

    # --- approvals

    def _approval(self, item: Item) -> bool:
        if self._approve is not None:
            return self._decide(item, "approve" if self._approve == "all" else "deny")
        if not self._person:
            return False
        self._screen.line(
            f"{short(str(item.get('server')))} would run {short(item['original_name'])}"
            f"{' (it says that it only reads)' if item.get('read_only') else ''}:",
            style="bold",
        )
        text = pretty(item["args"])
        whole = quoted(text)
        bounded = _bounded(whole)
        self._screen.line(bounded)
        more = ", ? shows all" if bounded != whole else ""
        said = self._screen.ask(f"Approve? [y/N/reason{more}] ").strip()
        if more and said == "?":
            self._screen.line(whole)
            said = self._screen.ask("Approve? [y/N/reason] ").strip()
        approved = said.lower() in ("y", "yes")
        reason = "" if approved or said.lower() in ("", "n", "no") else said[:MAX_REASON]
        self._answers.approve(item["id"], "approve" if approved else "deny", reason)
        return True

    def _decide(self, item: Item, decision: str) -> bool:
        """What was decided before and waits again was not taken: that is for a person."""
        if item["id"] in self._decided:
            return False
        self._screen.aside(
            f"{decision}: {short(item['tool_name'])} {short(item['args'])}", style="dim"
        )
        try:
            self._answers.approve(item["id"], decision)
        except Refused:
            self._decided.add(item["id"])
            raise
        return True

    # --- questions

    def _question(self, item: Item) -> None:
        self._screen.line(f"{short(item['tool_name'])} asks:", style="bold")
        self._screen.line(_bounded(quoted(item["message"])))
        if item["mode"] == "url":
            self._visit(item)
            return
        self._screen.line("!decline or !cancel (Ctrl-D) instead of an answer.", style="dim")
        try:
            content = forms.fill(self._screen, item.get("schema") or {})
        except forms.Ended as ended:
            self._answers.fill_in(item["id"], ended.action)
            return
        self._answers.fill_in(item["id"], "accept", content)

    def _visit(self, item: Item) -> None:
        """The page is never opened for them, and its address is shown in full."""
        self._screen.line("Open this page yourself, if you trust it:", style="bold")
        self._screen.line(quoted(str(item["url"])))
        try:
            said = self._screen.ask("Done? [y/N/!cancel] ").strip().lower()
        except EOFError:
            said = "!cancel"
        actions = {"y": "accept", "yes": "accept", "!cancel": "cancel"}
        self._answers.fill_in(item["id"], actions.get(said, "decline"))

    # --- accounts

    def _account(self, item: Item) -> None:
        """Connecting answers by itself, so what still waits then is asked again."""
        self._screen.line(f"{short(item['display_name'])}: {short(item['message'])}", style="bold")
        if item["connect_url"]:
            self._screen.line("Open this page, which is for you alone and works once:")
            self._screen.line(quoted(self._answers.connect_url(item["server_id"])))
        said = self._screen.ask("Connected? [Y, or s to go on without it] ").strip().lower()
        if said in ("s", "skip", "n", "no"):
            self._answers.skip_account(item["id"])

    # --- the client's own tools

    def _results(self, items: Sequence[Item]) -> bool:
        if items and not self._person:
            return False
        results = [self._result(item) for item in items]
        if results:
            self._answers.give_results(results)
        return True

    def _result(self, item: Item) -> dict[str, Any]:
        self._screen.line(f"{short(item['tool_name'])} is yours to run:", style="bold")
        self._screen.line(_bounded(quoted(pretty(item["args"]))))
        said = self._screen.ask("Its result, text or JSON [!error TEXT]: ").strip()
        is_error = said.startswith("!error")
        output = said.removeprefix("!error").strip()
        return {
            "tool_call_id": item["tool_call_id"],
            "output": output if is_error else _read(output),
            "is_error": is_error,
        }


def pretty(args: str) -> str:
    """JSON for people; what is not JSON as it is."""
    try:
        return json.dumps(json.loads(args), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return args


def _read(said: str) -> Any:
    try:
        return orjson.loads(said)
    except ValueError:
        return said


def _bounded(text: str) -> str:
    lines = text.split("\n")
    cut = "\n".join(lines[:SHOWN_LINES])[:SHOWN_CHARACTERS]
    return text if cut == text else f"{cut}\n│ … ({len(lines)} lines, {len(text)} characters)"
