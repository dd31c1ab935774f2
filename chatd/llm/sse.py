"""Server-sent events, as far as providers use them: the data of each event, from raw bytes."""

from chatd.llm.failures import StreamMalformed

MAX_EVENT = 16 * 1024 * 1024
"""Bytes; a tool call with a file in its arguments may come as one event."""


class EventData:
    """Splits a byte stream at CRLF, LF or CR; comments and other fields are dropped.

    Bytes are decoded by whoever parses the data: a character may be split between two reads.
    """

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        self._weight = 0
        self._data: list[bytes] = []
        self._after_cr = False

    def feed(self, read: bytes) -> list[bytes]:
        """The data of every event that this read completes."""
        if self._after_cr and read.startswith(b"\n"):
            read = read[1:]
        self._after_cr = read.endswith(b"\r")
        self._weight += len(read)
        if self._weight > MAX_EVENT:
            raise StreamMalformed(f"an event is larger than {MAX_EVENT} bytes")
        if b"\n" not in read and b"\r" not in read:
            self._rest.append(read)
            return []
        complete = read.endswith((b"\n", b"\r"))
        lines = (b"".join(self._rest) + read).splitlines()
        self._rest = [] if complete else [lines.pop()]
        return self._events(lines)

    def end(self) -> list[bytes]:
        """The data of an event whose closing empty line never came."""
        return self._events([*b"".join(self._rest).splitlines(), b""])

    def _events(self, lines: list[bytes]) -> list[bytes]:
        events: list[bytes] = []
        for line in lines:
            if line.startswith(b"data:"):
                self._data.append(line[5:])
            elif not line and self._data:
                events.append(self._data[0] if len(self._data) == 1 else b"\n".join(self._data))
                self._data.clear()
        self._weight = sum(map(len, self._rest)) + sum(map(len, self._data))
        return events
