"""A tool list out of what servers really send."""

from typing import Any
from uuid import UUID

import pytest

from chatd.mcp.errors import ServerFailed
from chatd.mcp.listing import MAX_DESCRIPTION, MAX_TITLE, MAX_TOOLS, MAX_TTL_MS, Pages, ToolList

SERVER = UUID(int=1)
SCHEMA = {"type": "object"}


def _listed(*tools: object, modern: bool = False, **page: Any) -> ToolList:
    pages = Pages(SERVER, modern)
    for raw in pages.tools_of({"tools": list(tools), **page}):
        pages.add(raw)
    return pages.result(None)


UNUSABLE: list[tuple[object, str, str]] = [
    (None, "", "unusable_name"),
    ("add", "", "unusable_name"),
    ({"inputSchema": SCHEMA}, "", "unusable_name"),
    ({"name": "", "inputSchema": SCHEMA}, "", "unusable_name"),
    ({"name": 3, "inputSchema": SCHEMA}, "", "unusable_name"),
    ({"name": "x" * 129, "inputSchema": SCHEMA}, "x" * 127 + "…", "unusable_name"),
    ({"name": "add\u202egnp", "inputSchema": SCHEMA}, "addgnp", "unusable_name"),
    ({"name": "add\nup", "inputSchema": SCHEMA}, "add up", "unusable_name"),
    ({"name": " add", "inputSchema": SCHEMA}, "add", "unusable_name"),
    ({"name": "a\x1b[31md", "inputSchema": SCHEMA}, "ad", "unusable_name"),
    ({"name": "a\ufe00\ufe01", "inputSchema": SCHEMA}, "a", "unusable_name"),
    ({"name": "bad"}, "bad", "unusable_schema"),
    ({"name": "bad", "inputSchema": None}, "bad", "unusable_schema"),
    ({"name": "bad", "inputSchema": {"type": "string"}}, "bad", "unusable_schema"),
    ({"name": "good", "inputSchema": SCHEMA}, "good", "duplicate_name"),
]


@pytest.mark.parametrize(("raw", "name", "reason"), UNUSABLE)
def test_an_unusable_tool_is_quarantined_alone(raw: object, name: str, reason: str) -> None:
    listed = _listed({"name": "good", "inputSchema": SCHEMA}, raw)
    assert [tool.name for tool in listed.tools] == ["good"]
    (drop,) = listed.quarantined
    assert (drop.name, drop.reason, drop.server_id) == (name, reason, SERVER)
    assert drop.detail


def test_of_two_tools_with_one_name_the_first_is_kept() -> None:
    first = {"name": "a", "description": "first", "inputSchema": SCHEMA}
    assert _listed(first, first | {"description": "second"}).tools[0].description == "first"


def test_sloppy_fields_beside_a_usable_schema_do_no_harm() -> None:
    sloppy: dict[str, Any] = {"description": 3, "title": [], "annotations": "x", "_meta": []}
    (tool,) = _listed(
        {"name": "a", "inputSchema": SCHEMA, "outputSchema": "nonsense", "icons": 7, **sloppy}
    ).tools
    assert (tool.description, tool.title, tool.read_only, tool.destructive) == ("", "", False, True)


def test_hints_are_only_what_is_literally_true() -> None:
    hints = {"readOnlyHint": "yes", "idempotentHint": True, "destructiveHint": False, "title": "T"}
    (tool,) = _listed({"name": "a", "inputSchema": SCHEMA, "annotations": hints}).tools
    assert (tool.read_only, tool.idempotent, tool.destructive, tool.title) == (
        False,
        True,
        False,
        "T",
    )


def test_descriptions_are_capped_and_show_all_they_hold() -> None:
    text = "a\u200bb\U000e0041c\x00\n" + "x" * 20_000
    (tool,) = _listed({"name": "a", "inputSchema": SCHEMA, "description": text}).tools
    assert tool.description.startswith("abc\ufffd\nxx")
    assert len(tool.description) == MAX_DESCRIPTION


HIDDEN = [
    *("\u202e", "\u2066", "\u200b", "\U000e0041", "\x1b[31m", "\x1b", "\x9b", "\ufe00\ufe0f"),
    *("\xad", "\u034f", "\u3164", "\u206a", "\u200d\u200c", "\ufe0f\u200d\ufe0f"),
]


@pytest.mark.parametrize("hidden", HIDDEN)
def test_two_definitions_that_look_the_same_are_the_same(hidden: str) -> None:
    def definition(between: str) -> dict[str, Any]:
        schema = {"properties": {"p": {"description": f"a{between}b"}}}
        text = f"a{between}b"
        return {"name": "t", "title": text, "description": text, "inputSchema": schema}

    (plain,), (dressed,) = (_listed(definition(text)).tools for text in ("", hidden))
    assert plain == dressed


def test_a_title_is_one_line_of_at_most_200_characters() -> None:
    (tool,) = _listed({"name": "t", "title": "a\n b" + "x" * 300, "inputSchema": SCHEMA}).tools
    assert tool.title.startswith("a bx")
    assert len(tool.title) <= MAX_TITLE


def test_a_list_without_end_is_cut() -> None:
    tools = [{"name": f"t{n}", "inputSchema": SCHEMA} for n in range(MAX_TOOLS + 10)]
    assert len(_listed(*tools).tools) == MAX_TOOLS


def test_an_answer_without_a_list_is_no_empty_list() -> None:
    with pytest.raises(ServerFailed, match="no list"):
        Pages(SERVER, modern=True).tools_of({"tools": None})


def test_the_shortest_time_to_live_of_all_pages_holds() -> None:
    pages = Pages(SERVER, modern=True)
    for ttl_ms in (5000, -3, 9000):
        pages.tools_of({"tools": [], "ttlMs": ttl_ms, "cacheScope": "public"})
    assert (pages.result(None).ttl_ms, pages.result(None).cache_scope) == (0, "public")


@pytest.mark.parametrize(
    ("said", "known"),
    [(float("inf"), MAX_TTL_MS), (float("nan"), 0), (10**400, MAX_TTL_MS), (float("-inf"), 0)],
)
def test_a_time_to_live_that_is_no_time_spoils_no_list(said: float, known: int) -> None:
    pages = Pages(SERVER, modern=True)
    pages.tools_of({"tools": [], "ttlMs": said})
    assert pages.result(None).ttl_ms == known


def test_an_old_server_says_nothing_of_time() -> None:
    listed = _listed(ttlMs=5000)
    assert (listed.ttl_ms, listed.cache_scope) == (None, "private")


def test_a_modern_server_must_spell_its_headers_right() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "number", "x-mcp-header": "A"}}}
    raw = {"name": "a", "inputSchema": schema}
    assert [drop.reason for drop in _listed(raw, modern=True).quarantined] == ["unusable_schema"]
    assert not _listed(raw).quarantined
