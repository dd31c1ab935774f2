"""Server-sent events as our server writes them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event. `lost` is ours: the connection broke, and we try again."""

    name: str
    data: dict[str, Any]
    id: str = ""


def parse(chunks: Iterable[bytes]) -> Iterator[Event]:
    """Our server writes one line a field and ends it with LF; comments keep us awake."""
    fields = dict[bytes, bytes]()
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line:
                name, _, value = line.partition(b": ")
                fields[name] = value
            elif b"data" in fields:
                data = orjson.loads(fields[b"data"])
                yield Event(fields[b"event"].decode(), data, fields[b"id"].decode())
                fields.clear()
