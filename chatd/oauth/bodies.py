"""Reading an answer of a server nobody vouches for."""

import httpx2

MAX_BYTES = 256 * 1024
"""Our own limit as well as the client's: that one lets event streams through."""


async def capped_body(response: httpx2.Response) -> bytes | None:
    """As it came over the wire; None when it is larger than MAX_BYTES."""
    body = bytearray()
    async for piece in response.aiter_raw():
        body += piece
        if len(body) > MAX_BYTES:
            return None
    return bytes(body)
