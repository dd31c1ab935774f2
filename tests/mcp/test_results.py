"""What the model reads of a result."""

import base64
from typing import Any

import orjson
import pytest
from hypothesis import given, strategies as st

from chatd.core.tools import JsonObject
from chatd.mcp.results import MAX_MEDIA, tool_result

PNG = base64.b64encode(b"\x89PNG").decode()


def _text(content: Any, **result: Any) -> str:
    return tool_result({"content": content, **result}).text


def text_block(text: str) -> JsonObject:
    return {"type": "text", "text": text}


TEXTS: list[tuple[Any, str]] = [
    ([], ""),
    (None, ""),
    ("nonsense", ""),
    ([text_block("a"), text_block("b")], "a\nb"),
    ([3], "[unsupported content]"),
    ([{"type": "hologram"}], "[unsupported content type: hologram]"),
    ([{"type": "text"}], ""),
    ([text_block("a\x00b")], "a\ufffdb"),
    ([{"type": "resource", "resource": {"uri": "file:///a", "text": "inline"}}], "inline"),
    ([{"type": "resource", "resource": None}], "[unsupported content]"),
    (
        [{"type": "resource", "resource": {"uri": "f:/a", "mimeType": "a/pdf", "blob": PNG}}],
        "[binary resource: f:/a (a/pdf)]",
    ),
    ([{"type": "resource_link", "name": "n", "uri": "u"}], "[resource: n (u)]"),
    (
        [{"type": "resource_link", "name": "n", "uri": "u", "description": "d"}],
        "[resource: n (u): d]",
    ),
    (
        [{"type": "image", "mimeType": "image/png", "data": "?"}],
        "[image decode error: not valid base64]",
    ),
    (
        [{"type": "image", "mimeType": "text/html", "data": PNG}],
        "[image of unsupported type text/html]",
    ),
    ([{"type": "image", "mimeType": "image/png"}], ""),
    ([{"type": "image", "data": PNG}], ""),
]


@pytest.mark.parametrize(("content", "text"), TEXTS)
def test_content_becomes_text(content: Any, text: str) -> None:
    assert _text(content) == text


@pytest.mark.parametrize(
    ("block", "media_type"),
    [
        ({"type": "image", "mimeType": "image/PNG", "data": PNG}, "image/png"),
        ({"type": "audio", "mimeType": "audio/wav", "data": PNG + "\n"}, "audio/wav"),
        ({"type": "resource", "resource": {"mimeType": "image/gif", "blob": PNG}}, "image/gif"),
    ],
)
def test_images_and_sounds_are_kept_beside_the_text(block: JsonObject, media_type: str) -> None:
    result = tool_result({"content": [text_block("see"), block]})
    assert result.text == "see"
    assert result.media == ({"media_type": media_type, "data": PNG},)


def test_media_may_be_large_but_not_without_end() -> None:
    fits, too_big = (base64.b64encode(b"x" * size).decode() for size in (MAX_MEDIA, MAX_MEDIA + 1))
    blocks = [{"type": "image", "mimeType": "image/png", "data": data} for data in (fits, too_big)]
    result = tool_result({"content": blocks})
    assert (len(result.media), result.text) == (1, f"[image too large: {MAX_MEDIA + 1} bytes]")


STRUCTURED: list[tuple[list[str], Any, str]] = [
    ([], {"a": 1}, '{"a":1}'),
    (['{"a": 1}'], {"a": 1}, '{"a": 1}'),
    (['{"b": 2, "a": 1}'], {"a": 1, "b": 2}, '{"b": 2, "a": 1}'),
    (["hello"], {"a": 1}, 'hello\n{"a":1}'),
    (["3"], {"result": 3}, "3"),
    (["hello"], {"result": "hello"}, "hello"),
    (["1", "2"], {"result": [1, 2]}, "1\n2"),
    (["a", "b"], ["a", "b"], "a\nb"),
    (["1"], True, "1\ntrue"),
    ([], None, ""),
    ([], {"n": 2**70}, '{"n": 1180591620717411303424}'),
]


@pytest.mark.parametrize(("texts", "structured", "shown"), STRUCTURED)
def test_structured_content_is_shown_once(texts: list[str], structured: Any, shown: str) -> None:
    content = [text_block(text) for text in texts]
    assert _text(content, structuredContent=structured) == shown


def test_an_error_of_the_tool_is_an_answer() -> None:
    result = tool_result({"content": [text_block("no")], "isError": True})
    assert (result.is_error, result.outcome, result.text) == (True, "done", "no")


def test_a_tool_that_wants_input_has_not_finished() -> None:
    result = tool_result({"resultType": "input_required", "inputRequests": {}})
    assert (result.is_error, result.outcome) == (True, "failed")


def test_a_secret_in_an_unknown_kind_of_result_is_blotted_out() -> None:
    raw = {"resultType": "x tok-secret-1234"}
    assert "tok-secret" not in tool_result(raw, secrets={"tok-secret-1234"}).text


def test_secrets_are_blotted_out_of_the_whole_text() -> None:
    text = "x" * 100_000 + "tok-secret-1234" * 60
    result = tool_result({"content": [text_block(text)]}, secrets={"tok-secret-1234"})
    assert result.text == "x" * 100_000 + "[REDACTED]" * 60


LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=5)


@given(st.recursive(LEAVES, st.lists, max_leaves=9))
def test_any_json_as_content_gives_a_text(content: Any) -> None:
    result = tool_result({"content": content, "structuredContent": content})
    orjson.dumps(result.text)
