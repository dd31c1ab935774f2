"""The names a model knows tools by."""

import re

import pytest
from hypothesis import given, strategies as st

from chatd.policy.names import qualify

SAFE = re.compile(r"[A-Za-z0-9_-]{1,64}")

names = st.text(min_size=1, max_size=90) | st.text("ab_-.", min_size=1, max_size=12)
slugs = st.from_regex(r"[A-Za-z0-9_-]{1,30}", fullmatch=True)


@pytest.mark.parametrize(
    ("slug", "tool", "name"),
    [
        ("demo", "add", "demo__add"),
        ("git-hub", "list_repos", "git-hub__list_repos"),
        ("demo", "read.file", "demo__read_file"),
        ("demo", "a__b", "demo__a__b"),
        ("demo", "x" * 58, "demo__" + "x" * 58),
    ],
)
def test_a_safe_name_is_the_slug_and_the_tool(slug: str, tool: str, name: str) -> None:
    assert qualify(slug, [tool]) == {tool: name}


def test_the_tool_that_owns_a_name_keeps_it() -> None:
    named = qualify("demo", ["read.file", "read_file", "read/file"])
    assert named["read_file"] == "demo__read_file"
    assert len(set(named.values())) == 3


def test_long_names_that_differ_at_the_end_still_differ_there() -> None:
    tools = [f"{'search_the_company_wide_knowledge_base_' * 2}by_{what}" for what in ("id", "url")]
    named = qualify("demo", tools)
    for what, tool in zip(("id", "url"), tools, strict=True):
        assert f"by_{what}_" in named[tool]
        assert len(named[tool]) <= 64


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a", "b__c"), ("a__b", "c")),
        (("a", "_b"), ("a_", "b")),
        (("a_b", "c"), ("a.b", "c")),
    ],
)
def test_two_servers_never_share_a_name(one: tuple[str, str], other: tuple[str, str]) -> None:
    names = [qualify(slug, [tool])[tool] for slug, tool in (one, other)]
    assert names[0] != names[1]


def test_a_server_cannot_take_the_hashed_name_of_another() -> None:
    victim = qualify("a__b", ["c"])["c"]
    assert victim.startswith("a__")
    attack = victim.removeprefix("a__")
    assert qualify("a", [attack])[attack] != victim


@given(slugs, st.sets(names, min_size=1, max_size=20))
def test_names_are_safe_unique_and_stable(slug: str, tools: set[str]) -> None:
    named = qualify(slug, sorted(tools))
    assert all(SAFE.fullmatch(name) for name in named.values())
    assert len(set(named.values())) == len(tools)
    assert qualify(slug, sorted(tools, reverse=True)) == named


@given(st.sets(st.tuples(slugs, names), min_size=1, max_size=20))
def test_names_of_all_servers_together_are_unique(pairs: set[tuple[str, str]]) -> None:
    given: dict[str, list[str]] = {}
    for slug, tool in pairs:
        given.setdefault(slug, []).append(tool)
    every = [name for slug, tools in given.items() for name in qualify(slug, tools).values()]
    assert len(set(every)) == len(pairs)
