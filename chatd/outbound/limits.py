"""How much an answer may weigh."""

import httpx2


def body_limit(headers: httpx2.Headers, limit: int | None) -> int | None:
    """The limit in bytes that holds for the body behind these headers; event streams have none.

    An answer with a limit must not be compressed, so that nothing grows after it was counted.
    Raises RemoteProtocolError when the headers already break the rule.
    """
    if limit is None:
        return None
    encoding = headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        raise httpx2.RemoteProtocolError("the server compressed its answer although asked not to")
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "text/event-stream":
        return None
    length = headers.get("content-length", "")
    if length.isdigit() and int(length) > limit:
        raise too_large(limit)
    return limit


def too_large(limit: int) -> httpx2.RemoteProtocolError:
    return httpx2.RemoteProtocolError(f"the answer is larger than {limit} bytes")
