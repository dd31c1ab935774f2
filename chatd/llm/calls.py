"""Puts pieces of tool calls together by what providers really send, not by what they should."""

from collections.abc import Callable
from typing import Any

import orjson

from chatd.llm.intents import IntentScan


class Call:
    """One tool call of the answer; `announced` once its id and name were handed on."""

    __slots__ = ("announced", "given_id", "id", "index", "intent", "key", "name", "pieces")

    def __init__(self, index: int, key: int | None, given_id: str) -> None:
        self.index = index
        self.key = key
        self.given_id = given_id
        self.id = given_id
        self.name = ""
        self.pieces: list[str] = []
        self.announced = False
        self.intent: IntentScan | None = None

    def complete(self) -> bool:
        """True when the arguments so far are a whole JSON object."""
        try:
            return isinstance(orjson.loads("".join(self.pieces)), dict)
        except ValueError:
            return False


class Calls:
    """The calls of one answer. `new_id` names those that the provider left without an id."""

    def __init__(self, new_id: Callable[[], str]) -> None:
        self.all: list[Call] = []
        self._new_id = new_id
        self._ids: set[str] = set()

    def place(self, entry: dict[str, Any]) -> tuple[Call, str]:
        """The call a piece belongs to, and its part of the arguments.

        Raises TypeError or AttributeError when the piece has no known shape.
        """
        function: dict[str, Any] = entry.get("function") or {}
        given_id = str(entry.get("id") or "")
        name: str = function.get("name") or ""
        arguments = _text(function.get("arguments"))
        key = entry.get("index")
        call = self._find(key, given_id, name, arguments)
        if call is None:
            call = self._add(key, given_id)
        if name and not call.name:
            call.name = name
        if arguments:
            call.pieces.append(arguments)
        return call, arguments

    def _add(self, key: int | None, given_id: str) -> Call:
        call = Call(len(self.all), key, given_id)
        if not given_id or given_id in self._ids:
            call.id = self._new_id()
        self._ids.add(call.id)
        self.all.append(call)
        return call

    def _find(self, key: int | None, given_id: str, name: str, arguments: str) -> Call | None:
        """None: a new call. A name with another id, or after complete arguments, starts one.

        Some providers number every call 0 or not at all; some repeat name and id with each piece;
        some invent a new id for each piece, then without the name.
        """
        if key is None:
            known = self.all[-1] if self.all else None
            if given_id:
                same = (call for call in reversed(self.all) if call.given_id == given_id)
                known = next(same, None if name else known)
        else:
            known = next((call for call in reversed(self.all) if call.key == key), None)
        if known is None or not name or not known.name:
            return known
        if given_id and known.given_id and given_id != known.given_id:
            return None
        if given_id and given_id == known.given_id:
            return known
        if name != known.name or (arguments.strip() and known.complete()):
            return None
        return known


def _text(arguments: object) -> str:
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else orjson.dumps(arguments).decode()
