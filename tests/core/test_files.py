"""What a file is, by its bytes, and what it may be called."""

import tracemalloc
from typing import Any

import pytest

from chatd.core.errors import BadRequest
from chatd.core.files import MAX_NAME, new_upload, safe_name

LARGE = b"[" + b"[]," * 3_000_000 + b"[]]"
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 20


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "The file is empty."),
        (b"<html><body>hi", "HTML"),
        (b"\n \t<!DOCTYPE html>", "HTML"),
        (b"\xef\xbb\xbf<!-- a --> <!-- b --><HTML>", "HTML"),
        (b"<!--><svg onload=alert(1)>", "SVG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"<svg:svg/>", "SVG"),
        (b"<?xml version='1.0'?><svg/>", "XML"),
        (b"<script>alert(1)</script>", "HTML"),
        (b"<p>hello</p>", "HTML"),
        (b"plain \xff text", "Text must be UTF-8."),
        ("häßlich".encode("latin-1"), "Text must be UTF-8."),
        (b"MZ\x90\x00\x03", "PNG, JPEG, GIF, WebP, PDF and text are accepted."),
        (b"PK\x03\x04", "PNG, JPEG, GIF, WebP, PDF and text are accepted."),
        (b"RIFF\0\0\0\0AVI ", "PNG, JPEG, GIF, WebP, PDF and text are accepted."),
    ],
)
def test_what_is_not_accepted(data: bytes, says: str) -> None:
    with pytest.raises(BadRequest) as refused:
        new_upload(data, name="a.png", declared="image/png")
    assert says in refused.value.message + refused.value.detail


@pytest.mark.parametrize("page", [b"<html>", b"<svg>", b"<!doctype html>", b"<script>"])
@pytest.mark.parametrize("name", ["a.md", "a.csv", "a.txt"])
def test_a_page_is_none_the_less_one_for_its_name(page: bytes, name: str) -> None:
    with pytest.raises(BadRequest):
        new_upload(page, name=name)


KINDS: list[tuple[bytes, dict[str, str], str]] = [
    (PNG, {"name": "a.txt", "declared": "text/plain"}, "image/png"),
    (b"\xff\xd8\xff\xe0", {}, "image/jpeg"),
    (b"GIF89a<html>", {}, "image/gif"),
    (b"RIFF\0\0\0\0WEBPVP8 ", {}, "image/webp"),
    (b"%PDF-1.7", {}, "application/pdf"),
    (b'{"a": 1}', {}, "application/json"),
    (b"\xef\xbb\xbf [1, 2]\n", {"name": "list.txt"}, "application/json"),
    (b'{"a": 1', {"name": "a.json"}, "text/plain"),
    (b"[" * 100_000, {}, "text/plain"),
    (LARGE, {}, "text/plain"),
    (LARGE, {"name": "a.json"}, "application/json"),
    (LARGE, {"declared": "application/json"}, "application/json"),
    (b"a,b\n1,2\n", {"name": "A.CSV"}, "text/csv"),
    (b"a,b\n1,2\n", {"declared": "text/csv; charset=utf-8"}, "text/csv"),
    (b"# hi", {"name": "README.md"}, "text/markdown"),
    (b'<h1 align="center">hi</h1>', {"name": "README.md"}, "text/markdown"),
    (b"# hi", {"declared": "text/markdown"}, "text/markdown"),
    (b"# hi", {"declared": "text/html"}, "text/plain"),
    (b"an <html> in the middle", {}, "text/plain"),
    (b"<- left \x1b[31mred", {}, "text/plain"),
    ("日本語".encode(), {}, "text/plain"),
]


@pytest.mark.parametrize(("data", "said", "media_type"), KINDS)
def test_the_bytes_decide(data: bytes, said: Any, media_type: str) -> None:
    assert new_upload(data, **said).media_type == media_type


def test_a_file_without_a_name_gets_one() -> None:
    assert new_upload(PNG).name == "file.png"
    assert new_upload(b"x", name=" ../ ").name == "file.txt"


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\temp\\a b.txt", "a b.txt"),
        ("a\r\nSet-Cookie: x=1.txt", "aSet-Cookie: x=1.txt"),
        ("photo\u202egnp.exe", "photognp.exe"),
        ("a\u200bb\U000e0041.txt", "ab.txt"),
        ("a\x00b\ud800", "a\ufffdb\ufffd"),
        ("..", ""),
        (".env", ".env"),
        ("größe 日本.pdf", "größe 日本.pdf"),
    ],
)
def test_names_hold_no_path_and_nothing_invisible(name: str, safe: str) -> None:
    assert safe_name(name) == safe


@pytest.mark.parametrize("name", ["x" * 999 + ".csv", "日" * 300 + ".csv", "é" * 999])
def test_long_names_keep_their_end(name: str) -> None:
    short = safe_name(name)
    assert len(short.encode()) <= MAX_NAME
    assert short.endswith(".csv") is name.endswith(".csv")


def test_what_is_large_is_not_taken_apart_to_see_what_it_is() -> None:
    tracemalloc.start()
    try:
        new_upload(LARGE, name="a.json")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 4 * len(LARGE)
