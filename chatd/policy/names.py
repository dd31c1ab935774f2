"""The names a model knows tools by: `slug__tool`, or the same with a hash where that is not safe.

A name depends on its own server only, never on the other servers or on any order, so it stays the
same from turn to turn. It is never split to find the way back: `OfferedTool` keeps that.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Collection

MAX_NAME = 64
"""What the providers accept, with `[A-Za-z0-9_-]`."""

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")
_HASHED = re.compile(r"_[0-9a-f]{8}\Z")
_HEAD = 24
_TAIL = 30


def qualify(slug: str, tools: Collection[str]) -> dict[str, str]:
    """The model's name of every tool (by its original name) of the server `slug`."""
    plain = {tool: f"{slug}__{_UNSAFE.sub('_', tool)}" for tool in tools}
    uses = Counter(plain.values())
    return {
        tool: name
        if _is_own(slug, name) and (uses[name] == 1 or name == f"{slug}__{tool}")
        else _hashed(slug, tool)
        for tool, name in plain.items()
    }


def _is_own(slug: str, name: str) -> bool:
    """True when no other slug and no hashed name can give this name."""
    return (
        len(name) <= MAX_NAME
        and name.partition("__")[0] == slug
        and _UNSAFE.search(slug) is None
        and _HASHED.search(name) is None
    )


def _hashed(slug: str, tool: str) -> str:
    """Keeps head and tail, where names differ, around the cut; the hash tells them apart."""
    digest = hashlib.sha256(f"{slug}\0{tool}".encode("utf-8", "surrogatepass")).hexdigest()[:8]
    name = _UNSAFE.sub("_", f"{slug}__{tool}")
    if len(name) > _HEAD + 1 + _TAIL:
        name = f"{name[:_HEAD]}_{name[-_TAIL:]}"
    return f"{name}_{digest}"
