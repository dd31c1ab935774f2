"""The signature by which a server can trust the identity headers of a request.

With a signing secret each request carries, computed as it is sent:

    X-Coder-Signature-Timestamp: <unix seconds>
    X-Coder-Signature: v1=<hex>

<hex> is HMAC-SHA256, keyed with the secret's UTF-8 bytes, over the UTF-8 bytes of these values,
joined by colons:

    v1
    the timestamp, as in its header
    the HTTP method, in capitals
    the path as it stands in the request line, percent-encoded, without `?` and what follows
    the value of X-Coder-Owner-Id
    the value of X-Coder-Chat-Id
    the value of X-Coder-Subchat-Id
    SHA-256 of the body, in hex; for a request without one, of nothing

A header that is not there counts as empty. Receivers compute the same, compare in constant time,
and refuse timestamps more than a few minutes off.
"""

import hashlib
import hmac
import time

import httpx2

SIGNATURE = "X-Coder-Signature"
TIMESTAMP = "X-Coder-Signature-Timestamp"
SIGNED = ("X-Coder-Owner-Id", "X-Coder-Chat-Id", "X-Coder-Subchat-Id")


async def sign(request: httpx2.Request, secret: str) -> None:
    """Adds both headers to a request that has all its other headers."""
    body = await request.aread()
    timestamp = str(int(time.time()))
    path = request.url.raw_path.partition(b"?")[0].decode()
    identity = (request.headers.get(name, "") for name in SIGNED)
    digest = hashlib.sha256(body).hexdigest()
    signed = ":".join(("v1", timestamp, request.method, path, *identity, digest))
    signature = hmac.new(secret.encode(), signed.encode(), hashlib.sha256).hexdigest()
    request.headers[TIMESTAMP] = timestamp
    request.headers[SIGNATURE] = f"v1={signature}"
