"""Files that users bring: what kinds there are, told by the bytes, and names that are safe."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

import orjson

from chatd.core.errors import BadRequest
from chatd.core.text import INVISIBLE, clean

MAX_FILE_BYTES = 10 * 1024 * 1024
MAX_CHAT_FILES = 50
"""Uploads linked to one chat; more are not kept with it."""
MAX_NAME = 255

IMAGES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
PDF = "application/pdf"
PLAIN = "text/plain"
TEXTS = frozenset({"application/json", "text/csv", "text/markdown", PLAIN})

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"%PDF-", PDF),
)
_EXTENSIONS = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/gif": "gif",
    "image/webp": "webp",
    PDF: "pdf",
    "application/json": "json",
    "text/csv": "csv",
    "text/markdown": "md",
    PLAIN: "txt",
}
_JSON = "application/json"
_HINTS = {
    "csv": "text/csv",
    "json": _JSON,
    "md": "text/markdown",
    "markdown": "text/markdown",
}
_MAX_PARSED = 1024 * 1024
"""Bytes of JSON that are looked into: parsed it may take forty times as much memory."""

_BINARY = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
_PREAMBLE = re.compile(r"\ufeff?(?:\s++|<!--(?:-?>|.*?-->))*+", re.DOTALL)
_PAGE = re.compile(
    r"<(?:[!?]?(?:doctype|xml)|html|head|body|script|iframe|frameset|style|title|meta|link|svg)"
    r"(?![\w-])",
    re.IGNORECASE,
)
_FRAGMENT = re.compile(r"<(?:a|b|br|div|font|h1|img|p|table)(?![\w-])", re.IGNORECASE)
_CONTROL = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
)


@dataclass(frozen=True, slots=True)
class NewFile:
    """Bytes with the kind that they were found to be."""

    name: str
    media_type: str
    data: bytes


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A stored file without its bytes."""

    id: UUID
    kind: Literal["upload", "result", "plan"]
    name: str
    media_type: str
    size: int
    sha256: str
    created_at: datetime


def new_upload(data: bytes, *, name: str = "", declared: str = "") -> NewFile:
    """A user's file; `name` and `declared` (a media type) only tell texts apart.

    Raises `BadRequest` for what is empty or of no kind that is accepted.
    """
    if not data:
        raise BadRequest("The file is empty.")
    name = safe_name(name)
    media_type = _binary_type(data) or _text_type(data, name, declared)
    return NewFile(name or f"file.{_EXTENSIONS[media_type]}", media_type, data)


def safe_name(name: str) -> str:
    """The last part of a path, without what could end a line or turn the text around."""
    name = clean(name).replace("\\", "/").rpartition("/")[2]
    name = _CONTROL.sub("", INVISIBLE.sub("", name)).strip().rstrip(" .")
    if len(name.encode()) <= MAX_NAME:
        return name
    stem, dot, extension = name.rpartition(".")
    ending = f".{extension}" if dot and len(extension.encode()) < 20 else ""
    room = MAX_NAME - len(ending.encode())
    return (stem if ending else name).encode()[:room].decode(errors="ignore") + ending


def _binary_type(data: bytes) -> str | None:
    for magic, media_type in _MAGIC:
        if data.startswith(magic):
            return media_type
    return "image/webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def _text_type(data: bytes, name: str, declared: str) -> str:
    if _BINARY.search(data):
        raise _unsupported("PNG, JPEG, GIF, WebP, PDF and text are accepted.")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise _unsupported("Text must be UTF-8.") from None
    hint = _HINTS.get(name.rpartition(".")[2].lower())
    if hint is None and (said := declared.partition(";")[0].strip().lower()) in TEXTS:
        hint = said
    _refuse_page(text, hint)
    if hint in ("text/csv", "text/markdown"):
        return hint
    return _JSON if _is_json(data, hint) else PLAIN


def _refuse_page(text: str, hint: str | None) -> None:
    """What a browser would take for a page or a drawing. Markdown often begins with a tag."""
    preamble = _PREAMBLE.match(text)
    start = preamble.end() if preamble else 0
    fragment = hint != "text/markdown" and _FRAGMENT.match(text, start)
    if _PAGE.match(text, start) or fragment:
        raise _unsupported("HTML, XML and SVG are not accepted.")


def _is_json(data: bytes, hint: str | None) -> bool:
    if not data.removeprefix(b"\xef\xbb\xbf").lstrip().startswith((b"{", b"[")):
        return False
    if len(data) > _MAX_PARSED:
        return hint == _JSON
    try:
        orjson.loads(data.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError:
        return False
    return True


def _unsupported(detail: str) -> BadRequest:
    return BadRequest("Unsupported file type.", detail=detail)
