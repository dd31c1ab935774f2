"""`read_result`: the rest of a tool's answer that was too long for the conversation.

A text is counted in lines, from 1. A line of more than `WIDTH` characters counts as several, so
that a page can begin anywhere in it; it is shown without the breaks all the same.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from uuid import UUID

from chatd.core.tools import BuiltinTool, JsonObject, ToolResult, ToolSpec

WIDTH = 1000
"""Four bytes a character at most: any line fits the smallest result there is."""
CONTEXT = 2
"""Lines shown before and after one that matches."""
MAX_MATCHES = 100
MAX_SEARCH = 200
_HEADER_ROOM = 512

READ_RESULT = BuiltinTool(
    ToolSpec(
        name="read_result",
        title="Read a long result",
        description=(
            "Read a tool result that was too long to be shown whole; the result says its id where "
            "something was removed. Answers lines from `offset` on, or, with `search`, only the "
            "lines that contain a text."
        ),
        input_schema={
            "type": "object",
            "properties": {
                "id": {"type": "string", "description": "The id that the result names."},
                "offset": {
                    "type": "integer",
                    "minimum": 1,
                    "description": "The first line to read or to search. Default: 1. "
                    f"A line of over {WIDTH} characters counts as several.",
                },
                "limit": {
                    "type": "integer",
                    "minimum": 1,
                    "description": "How many lines, or matching lines, at most. "
                    f"Default: as many as fit; with search at most {MAX_MATCHES}.",
                },
                "search": {
                    "type": "string",
                    "description": "Text to look for, in any case; not a pattern. At most "
                    f"{MAX_SEARCH} characters.",
                },
            },
            "required": ["id"],
            "additionalProperties": False,
        },
        read_only=True,
        idempotent=True,
        destructive=False,
    )
)


@dataclass(frozen=True, slots=True)
class Asked:
    """Checked arguments; `limit` is None when the model named none."""

    offset: int
    limit: int | None
    search: str


def result_id(arguments: JsonObject) -> UUID | ToolResult:
    """Which result is asked for, or what is wrong with its id."""
    value = arguments.get("id")
    try:
        return UUID(value) if isinstance(value, str) else _wrong("id must be a string.")
    except ValueError:
        return unknown(str(value))


def unknown(value: str) -> ToolResult:
    """There is no such result, or it is not this chat's."""
    return _wrong(f"There is no result with the id {value[:50]!r} in this chat.")


def read_result(text: str, arguments: JsonObject, limit: int) -> ToolResult:
    """A page of the text, or its lines that match, in at most `limit` bytes (`FLOOR` or more)."""
    asked = _asked(arguments)
    if isinstance(asked, ToolResult):
        return asked
    lines = _Lines(text)
    if asked.offset > lines.count:
        return _wrong(f"offset {asked.offset} is past the end: there are {lines.count} lines.")
    room = limit - _HEADER_ROOM
    shown = _found(lines, asked, room) if asked.search else _page(lines, asked, room)
    return ToolResult(shown)


def line_of(text: str, position: int) -> int:
    """The line that the character at `position` is in, as this tool counts them."""
    return _Lines(text[: position + 1]).at(position) + 1


class _Lines:
    """Where the lines begin; both lines and characters are counted from 0 in here."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.starts = list(_starts(text))
        self.count = len(self.starts)

    def at(self, position: int) -> int:
        return bisect_right(self.starts, position) - 1

    def start(self, line: int) -> int:
        return self.starts[line] if line < self.count else len(self.text)

    def line(self, line: int) -> str:
        return self.text[self.start(line) : self.start(line + 1)].removesuffix("\n")

    def fitting(self, first: int, room: int) -> int:
        """How many lines from `first` on fit into so many bytes; at least one."""
        start = self.start(first)
        fits = self.text[start : start + room].encode()[:room].decode(errors="ignore")
        end = bisect_right(self.starts, start + len(fits))
        if start + len(fits) >= len(self.text):
            end = self.count + 1
        return max(end - 1 - first, 1)


def _starts(text: str) -> Iterator[int]:
    start = 0
    while True:
        newline = text.find("\n", start)
        end = len(text) if newline < 0 else newline
        yield from range(start, max(end, start + 1), WIDTH)
        if newline < 0 or newline + 1 == len(text):
            return
        start = newline + 1


def _page(lines: _Lines, asked: Asked, room: int) -> str:
    first = asked.offset - 1
    fit = lines.fitting(first, room)
    after = min(first + min(fit, asked.limit or fit), lines.count)
    header = f"Lines {first + 1}-{after} of {lines.count}."
    if after < lines.count:
        header += f" Continue with offset {after + 1}."
    return f"{header}\n\n{lines.text[lines.start(first) : lines.start(after)]}"


def _found(lines: _Lines, asked: Asked, room: int) -> str:
    most = min(asked.limit or MAX_MATCHES, MAX_MATCHES)
    matches = list(islice(_matching(lines, asked), most + 1))
    where = f"from line {asked.offset} on of {lines.count}"
    if not matches:
        return f"No line {where} contains {asked.search!r}."
    blocks = list(_blocks(lines, matches, room))[:most]
    header = f"Matching lines {where}: {len(blocks)}."
    if len(blocks) < len(matches):
        header += f" There are more: continue with offset {matches[len(blocks)] + 1}."
    return f"{header}\n\n" + "".join(blocks)


def _blocks(lines: _Lines, matches: list[int], room: int) -> Iterator[str]:
    """Each match with the lines around it, no line twice, as grep shows them; while there is
    room."""
    told = -1
    for match in matches:
        for around in (CONTEXT, 0):
            first = max(match - around, told + 1)
            last = max(match + around, told)
            block = "--\n" if first > told + 1 > 0 else ""
            block += "".join(
                f"{line + 1}{':' if line in matches else '-'} {lines.line(line)}\n"
                for line in range(first, min(last + 1, lines.count))
            )
            if len(block.encode()) <= room:
                break
        else:
            return
        room -= len(block.encode())
        told = last
        yield block


def _matching(lines: _Lines, asked: Asked) -> Iterator[int]:
    """The lines in which the search text begins; linear, whatever it is."""
    text, wanted = _caseless(lines.text), _caseless(asked.search)
    position = lines.start(asked.offset - 1)
    while (position := text.find(wanted, position)) >= 0:
        line = lines.at(position)
        yield line
        position = lines.start(line + 1)


def _caseless(text: str) -> str:
    """In lower case, and as long as it was: İ alone would grow. Final sigma is a sigma."""
    return text.replace("\u0130", "i").lower().replace("\u03c2", "\u03c3")


def _asked(arguments: JsonObject) -> Asked | ToolResult:
    offset, limit = (_positive(arguments.get(name)) for name in ("offset", "limit"))
    search = arguments.get("search") or ""
    if offset == 0 or limit == 0:
        return _wrong("offset and limit must be whole numbers from 1 on.")
    if not isinstance(search, str) or len(search) > MAX_SEARCH:
        return _wrong(f"search must be a string of at most {MAX_SEARCH} characters.")
    return Asked(offset or 1, limit, search)


def _positive(value: object) -> int | None:
    """None when absent, 0 when it is no such number; models also write 3 as 3.0."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return int(value) if value == value // 1 and 1 <= value < 2**53 else 0


def _wrong(text: str) -> ToolResult:
    return ToolResult(text, is_error=True, outcome="failed")
