"""Which tools of a server a turn may use, when listed and again right before the call."""

from typing import Any
from uuid import UUID

import pytest

from chatd.core.reasons import SENTENCES, Reason
from chatd.core.servers import ToolChanges
from chatd.core.situation import Situation
from chatd.core.tools import OfferedTool
from chatd.policy.approvals import approval_required
from chatd.policy.offer import offer
from chatd.policy.tools import select_tools, tool_refusal
from tests.policy.made import make_builtin, make_server, make_spec

A = UUID(int=1)


@pytest.mark.parametrize(
    ("allow", "deny", "reason"),
    [
        (set[str](), set[str](), None),
        ({"add"}, set[str](), None),
        ({"other"}, set[str](), "not_in_allow_list"),
        (set[str](), {"add"}, "denied"),
        ({"add"}, {"add"}, "denied"),
        (set[str](), {"ADD", "ad", "add ", "add.*", "demo__add"}, None),
        ({"Add"}, set[str](), "not_in_allow_list"),
    ],
)
def test_deny_wins_and_a_non_empty_allow_list_restricts_to_exact_names(
    allow: set[str], deny: set[str], reason: Reason | None
) -> None:
    server = make_server(tool_allow_list=frozenset(allow), tool_deny_list=frozenset(deny))
    selection = select_tools(server, [make_spec("add")])
    assert [spec.name for spec in selection.kept] == ([] if reason else ["add"])
    assert [drop.reason for drop in selection.dropped] == ([reason] if reason else [])


def test_of_two_tools_with_one_name_the_first_is_kept() -> None:
    first, second = make_spec("add", title="first"), make_spec("add", title="second")
    selection = select_tools(make_server(), [first, second])
    assert selection.kept == (first,)
    assert [drop.reason for drop in selection.dropped] == ["duplicate_name"]


@pytest.mark.parametrize(
    ("now", "options", "reason"),
    [
        ({}, {}, None),
        ({"enabled": False}, {}, "disabled"),
        ({"tool_deny_list": frozenset({"add"})}, {}, "denied"),
        ({"tool_allow_list": frozenset({"other"})}, {}, "not_in_allow_list"),
        ({}, {"plan_mode": True}, "not_in_plan_mode"),
        ({"allow_in_plan_mode": True}, {"plan_mode": True}, None),
        ({"tool_settings": {"add": {"plan_mode": "allow"}}}, {"plan_mode": True}, None),
        (
            {"tool_settings": {"other": {"plan_mode": "allow"}}},
            {"plan_mode": True},
            "tool_not_in_plan_mode",
        ),
        (
            {"allow_in_plan_mode": True, "tool_settings": {"add": {"plan_mode": "deny"}}},
            {"plan_mode": True},
            "tool_not_in_plan_mode",
        ),
        (
            {"allow_in_plan_mode": True, "tool_settings": {"add": {"plan_mode": "inherit"}}},
            {"plan_mode": True},
            None,
        ),
        ({"allow_in_plan_mode": True}, {"plan_mode": True, "is_child": True}, "plan_sub_agent"),
        ({}, {"selected_ids": frozenset[UUID]()}, "not_selected"),
        ({"availability": "force_on"}, {"selected_ids": frozenset[UUID]()}, None),
        ({}, {"unauthorised_ids": frozenset({A})}, "auth_required"),
    ],
)
def test_a_call_is_judged_by_the_configuration_of_this_moment(
    now: dict[str, Any], options: dict[str, Any], reason: Reason | None
) -> None:
    tool = offer([(make_server(), [make_spec("add")])]).tools[0]
    servers = {A: make_server(**now)}
    given: dict[str, Any] = {"selected_ids": frozenset({A}), **options}
    assert tool_refusal(tool, servers, Situation(**given)) == reason


def test_a_tool_of_a_deleted_server_may_not_be_called() -> None:
    tool = offer([(make_server(), [make_spec("add")])]).tools[0]
    assert tool_refusal(tool, {}, Situation(frozenset({A}))) == "not_found"


def test_a_built_in_tool_depends_on_no_server() -> None:
    assert tool_refusal(make_builtin("ask"), {}, Situation(plan_mode=True)) is None


def test_every_reason_has_a_sentence() -> None:
    assert set(SENTENCES) == set(Reason.__args__)
    assert all(sentence.endswith(".") for sentence in SENTENCES.values())


@pytest.mark.parametrize(("trusted", "asks"), [(True, False), (False, True)])
def test_trust_that_was_withdrawn_after_the_offer_no_longer_saves_an_approval(
    *, trusted: bool, asks: bool
) -> None:
    server = make_server(require_approval="unless_read_only", trust_annotations=trusted)
    tool = OfferedTool("demo__add", "add", "", {}, server_id=server.id, read_only=True)
    assert approval_required(tool, server) is asks


@pytest.mark.parametrize(
    ("mode", "served", "reason"),
    [
        ("quarantine", None, None),
        ("quarantine", "h", None),
        ("quarantine", "other", "changed"),
        ("quarantine", "", "changed"),
        ("hold", "h", None),
        ("hold", "other", "changed"),
        ("hold", "", "changed"),
        ("follow", "other", None),
        ("follow", "", None),
    ],
)
def test_a_call_is_for_the_definition_that_the_pins_let_through_now(
    mode: ToolChanges, served: str | None, reason: Reason | None
) -> None:
    server = make_server(tool_changes=mode)
    tool = OfferedTool("demo__add", "add", "", {}, server_id=server.id, definition_hash="h")
    hashes = {(server.id, "add"): served} if served else {}
    situation = Situation(selected_ids=frozenset({server.id}))
    now = {server.id: server}
    assert tool_refusal(tool, now, situation, None if served is None else hashes) == reason
