"""History becomes messages that strict providers accept, whatever happened in the chat."""

import json
from typing import Any

from hypothesis import given, strategies

from chatd.core.messages import HistoryMessage, Media, Part, Role
from chatd.llm.attached import fenced
from chatd.llm.prompt import INTERRUPTED, chat_messages

PNG = Media(media_type="image/png", data="aWNvbg==")


def message(role: Role, *parts: Part) -> HistoryMessage:
    return {"role": role, "content": list(parts)}


def text(words: str) -> Part:
    return {"type": "text", "text": words}


def call(call_id: str, args: str = "{}", name: str = "look") -> Part:
    return {"type": "tool-call", "tool_call_id": call_id, "tool_name": name, "args": args}


def result(call_id: str, words: str = "found", media: list[Media] | None = None) -> Part:
    part: Part = {
        "type": "tool-result",
        "tool_call_id": call_id,
        "tool_name": "look",
        "result": words,
        "is_error": False,
    }
    if media is not None:
        part["media"] = media
    return part


def built(*history: HistoryMessage) -> list[dict[str, Any]]:
    return chat_messages((), history)


def tool(call_id: str, content: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def test_a_plain_conversation() -> None:
    history = (message("user", text("hi")), message("assistant", text("hel"), text("lo")))
    assert chat_messages(["be kind", "", "be short"], history) == [
        {"role": "system", "content": "be kind\n\nbe short"},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello"},
    ]


def test_lines_of_a_file_travel_as_text() -> None:
    reference: Part = {
        "type": "file-reference",
        "file_name": "a.md",
        "start_line": 3,
        "end_line": 4,
        "content": "```x",
    }
    (sent,) = built(message("user", text("explain"), reference))
    assert sent["content"] == "explain\n\nFile a.md, lines 3-4:\n````\n```x\n````"


def test_a_step_with_calls() -> None:
    history = (
        message(
            "assistant",
            {"type": "reasoning", "text": "secret thoughts"},
            text("let me see"),
            call("a", '{"q": 1}'),
        ),
        message("tool", result("a")),
        message("assistant", call("b")),
        message("tool", result("b", "")),
    )
    function = {"name": "look", "arguments": '{"q": 1}'}
    assert built(*history) == [
        {
            "role": "assistant",
            "content": "let me see",
            "tool_calls": [{"id": "a", "type": "function", "function": function}],
        },
        tool("a", "found"),
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "b", "type": "function", "function": {"name": "look", "arguments": "{}"}}
            ],
        },
        tool("b", ""),
    ]


def test_messages_without_anything_to_send_are_left_out() -> None:
    thoughts: Part = {"type": "reasoning", "text": "hm"}
    assert built(message("assistant", thoughts), message("user"), message("assistant")) == []


def test_a_call_without_a_result_is_answered_before_anything_else() -> None:
    step = message("assistant", call("a"), call("b"), call("c"))
    for after in ([message("user", text("go on"))], [message("assistant", text("so"))], []):
        sent = built(step, message("tool", result("b")), *after)
        assert sent[1:4] == [tool("b", "found"), tool("a", INTERRUPTED), tool("c", INTERRUPTED)]
        assert len(sent) == 4 + len(after)


def test_orphans_and_duplicates_are_left_out() -> None:
    sent = built(
        message("tool", result("x")),
        message("assistant", call("a")),
        message("tool", result("a"), result("a", "again"), result("x")),
        message("tool", result("a", "again")),
        message("user", text("hi")),
        message("tool", result("a", "late")),
    )
    assert [m["role"] for m in sent] == ["assistant", "tool", "user"]
    assert sent[1] == tool("a", "found")


def test_an_id_may_come_again_in_a_later_step() -> None:
    step = (message("assistant", call("call_0")), message("tool", result("call_0")))
    assert [m["role"] for m in built(*step, *step)] == ["assistant", "tool"] * 2


def test_an_id_twice_in_one_step_is_sent_once() -> None:
    sent = built(message("assistant", call("a"), call("a")), message("tool", result("a")))
    assert len(sent[0]["tool_calls"]) == 1
    assert len(sent) == 2


def test_arguments_that_are_no_object_are_shown_in_the_result() -> None:
    for bad in ('{"q": ', "[1]", "null", "7", "look for it"):
        sent = built(message("assistant", call("a", bad)), message("tool", result("a")))
        assert sent[0]["tool_calls"][0]["function"]["arguments"] == "{}"
        expected = f"The arguments of this call were not a JSON object: {bad}\n\nfound"
        assert sent[1]["content"] == expected


def test_no_arguments_are_an_empty_object() -> None:
    sent = built(message("assistant", call("a", " ")), message("tool", result("a")))
    assert sent[0]["tool_calls"][0]["function"]["arguments"] == "{}"
    assert sent[1]["content"] == "found"


def test_names_and_ids_that_no_provider_takes() -> None:
    long = "toolu_" + "x" * 100
    sent = built(
        message(
            "assistant", call(long, name="bad name.1"), call("b", name=""), call("c", name="n" * 99)
        ),
        message("tool", result(long)),
    )
    calls = sent[0]["tool_calls"]
    assert [c["function"]["name"] for c in calls] == ["bad_name_1", "unknown", "n" * 64]
    assert len(calls[0]["id"]) <= 40
    assert sent[1]["tool_call_id"] == calls[0]["id"]


def test_media_follow_the_last_result_of_their_step() -> None:
    sent = built(
        message("assistant", call("a"), call("b"), call("c")),
        message("tool", result("a", media=[PNG])),
        message("tool", result("b", media=[{"media_type": "audio/mpeg", "data": "c291bmQ="}])),
        message("assistant", text("seen")),
    )
    assert [m["role"] for m in sent] == ["assistant", "tool", "tool", "tool", "user", "assistant"]
    assert sent[4]["content"] == [
        {"type": "text", "text": "Returned by tool call a (look):"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aWNvbg=="}},
        {"type": "text", "text": "Returned by tool call b (look):"},
        {"type": "input_audio", "input_audio": {"data": "c291bmQ=", "format": "mp3"}},
    ]


def test_media_no_provider_takes_are_named() -> None:
    for kind in ("audio/ogg", "image/svg+xml", "application/pdf"):
        sent = built(
            message("assistant", call("a")),
            message("tool", result("a", media=[{"media_type": kind, "data": "eA=="}])),
        )
        assert sent[2]["content"][1] == {
            "type": "text",
            "text": f"[{kind} that cannot be shown to you]",
        }


def attached(kind: str, name: str = "f", size: int = 3) -> Part:
    return {"type": "file", "file_id": name, "media_type": kind, "name": name, "size": size}


def shown(*parts: Part, max_text: int = 64 * 1024, **files: bytes) -> Any:
    """What a user's message with these parts becomes."""
    (sent,) = chat_messages((), [message("user", *parts)], files, max_text=max_text)
    return sent["content"]


def test_a_file_that_is_gone_is_named() -> None:
    said = shown(text("look"), attached("image/png"))
    assert said == (
        "look\n\n[File f (image/png, 3 bytes) is not available any more or too large to be shown]"
    )


def test_text_files_are_quoted() -> None:
    for kind in ("text/plain", "text/csv", "text/markdown", "application/json"):
        said = shown(attached(kind), f=b"\xef\xbb\xbfa ``` b")
        assert said == f"File f ({kind}, 3 bytes):\n````\na ``` b\n````"


def test_the_texts_of_one_message_share_its_room() -> None:
    files = {name: name.encode() * 100_000 for name in "abcd"}
    said = shown(*(attached("text/plain", name) for name in files), max_text=64_000, **files)
    assert len(said.encode()) < 64_500
    for name in files:
        assert said.count(name * 5000) >= 1
    assert said.count("bytes of this file were removed here …]") == 4


def test_pictures_and_documents_keep_their_place_between_texts() -> None:
    said = shown(
        text("first"),
        attached("image/webp", "a"),
        text("then"),
        attached("text/plain", "b"),
        attached("application/pdf", "c"),
        a=b"icon",
        b=b"words",
        c=b"%PDF",
    )
    assert said == [
        {"type": "text", "text": "first"},
        {"type": "image_url", "image_url": {"url": "data:image/webp;base64,aWNvbg=="}},
        {"type": "text", "text": "then\n\nFile b (text/plain, 3 bytes):\n```\nwords\n```"},
        {
            "type": "file",
            "file": {"filename": "c", "file_data": "data:application/pdf;base64,JVBERg=="},
        },
    ]


def test_a_kind_that_is_not_known_is_named() -> None:
    said = shown(attached("image/svg+xml"), f=b"<svg/>")
    assert said == "[File f (image/svg+xml, 3 bytes) cannot be shown to you]"


def test_media_of_an_orphan_are_left_out() -> None:
    assert built(message("tool", result("x", media=[PNG]))) == []


ids = strategies.sampled_from(["a", "b", "c"])
parts = strategies.one_of(
    strategies.just(text("words")),
    ids.map(call),
    ids.map(result),
    ids.map(lambda call_id: result(call_id, media=[PNG])),
)
roles: strategies.SearchStrategy[Role] = strategies.sampled_from(["user", "assistant", "tool"])
histories = strategies.lists(
    strategies.tuples(roles, strategies.lists(parts, max_size=4)).map(
        lambda drawn: message(drawn[0], *drawn[1])
    ),
    max_size=12,
)


@given(histories)
def test_every_call_has_exactly_one_result_right_after_it(history: list[HistoryMessage]) -> None:
    waiting: list[str] = []
    for sent in chat_messages((), history):
        if sent["role"] == "tool":
            waiting.remove(sent["tool_call_id"])
            continue
        assert waiting == []
        waiting = [made["id"] for made in sent.get("tool_calls", ())]
    assert waiting == []


def test_what_is_built_is_json() -> None:
    history = [message("assistant", call("a")), message("tool", result("a", media=[PNG]))]
    assert json.loads(json.dumps(chat_messages(["s"], history)))


def test_a_file_of_nothing_but_backticks_is_fenced_all_the_same() -> None:
    """At once: a worker that looks for the fence step by step has time for nothing else."""
    ticks = "`" * 900_000
    lines = fenced(ticks).split("\n")
    assert lines == ["`" * 900_001, ticks, "`" * 900_001]
