"""How much text one thing may take of a model's window, and cutting it to that."""

UNKNOWN_WINDOW = 64 * 1024
FLOOR = 16 * 1024
MARKER_ROOM = 256


def budget(context_limit: int) -> int:
    """Bytes of text that one tool result may have, given the model's window in tokens (0: unknown).

    A third of the window at three bytes a token.
    """
    if context_limit <= 0:
        return UNKNOWN_WINDOW
    return max(context_limit // 3 * 3, FLOOR)


def cap(text: str, limit: int, *, what: str = "result", more: str = "") -> str:
    """At most `limit` bytes of UTF-8: the first two thirds, the tail, and how much is missing.

    `more` says where the rest is; it may take 120 bytes.
    """
    data = text.encode()
    if len(data) <= limit:
        return text
    start, end = removed(data, limit)
    head, tail = data[:start].decode(), data[end:].decode()
    said = f"{end - start} of {len(data)} bytes of this {what} were removed here{more}"
    return f"{head}\n[… {said} …]\n{tail}"


def removed(data: bytes, limit: int) -> tuple[int, int]:
    """The bytes that `cap` leaves out, from and to: both are borders of characters."""
    room = limit - MARKER_ROOM
    start, end = room * 2 // 3, len(data) - (room - room * 2 // 3)
    while start and data[start] & 0xC0 == 0x80:
        start -= 1
    while end < len(data) and data[end] & 0xC0 == 0x80:
        end += 1
    return start, end
