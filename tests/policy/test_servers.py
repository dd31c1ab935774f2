"""Which servers a turn may use."""

from typing import Any
from uuid import UUID

import pytest

from chatd.core.reasons import Reason
from chatd.core.servers import McpServer
from chatd.core.situation import Situation
from chatd.policy.servers import select_servers
from tests.policy.made import make_server

A, B = UUID(int=1), UUID(int=2)
NOTHING_SELECTED = {"selected_ids": frozenset[UUID]()}


def test_the_servers_are_those_selected_and_those_forced_on_sorted_by_slug() -> None:
    servers = [
        make_server("zeta", id=UUID(int=3), availability="force_on"),
        make_server("beta", id=B, availability="default_on"),
        make_server("alpha", id=A),
    ]
    selection = select_servers(servers, Situation(frozenset({A})))
    assert [server.slug for server in selection.kept] == ["alpha", "zeta"]
    assert [(drop.name, drop.reason) for drop in selection.dropped] == [("beta", "not_selected")]


@pytest.mark.parametrize(
    ("server", "options", "reason"),
    [
        (make_server(), {}, None),
        (make_server(enabled=False), {}, "disabled"),
        (make_server(enabled=False, availability="force_on"), {}, "disabled"),
        (make_server(availability="force_on"), NOTHING_SELECTED, None),
        (
            make_server(availability="default_on"),
            {"selected_ids": frozenset[UUID]()},
            "not_selected",
        ),
        (make_server(), {"plan_mode": True}, "not_in_plan_mode"),
        (make_server(availability="force_on"), {"plan_mode": True}, "not_in_plan_mode"),
        (make_server(allow_in_plan_mode=True), {"plan_mode": True}, None),
        (
            make_server(allow_in_plan_mode=True),
            {"plan_mode": True, "is_child": True},
            "plan_sub_agent",
        ),
        (make_server(), {"is_child": True}, None),
        (make_server(access="groups"), {}, "not_in_group"),
        (make_server(access="groups"), {"group_ids": frozenset({B})}, "not_in_group"),
        (make_server(access="groups", group_ids=frozenset({B})), {}, "not_in_group"),
        (
            make_server(access="groups", group_ids=frozenset({B})),
            {"group_ids": frozenset({A, B})},
            None,
        ),
        (make_server(tool_settings={"add": {"plan_mode": "allow"}}), {"plan_mode": True}, None),
        (
            make_server(tool_settings={"add": {"plan_mode": "deny"}}),
            {"plan_mode": True},
            "not_in_plan_mode",
        ),
        (make_server(), {"unauthorised_ids": frozenset({A})}, "auth_required"),
        (make_server(enabled=False), {"unauthorised_ids": frozenset({A})}, "disabled"),
    ],
)
def test_each_server_is_kept_or_dropped_for_one_reason(
    server: McpServer, options: dict[str, Any], reason: Reason | None
) -> None:
    given: dict[str, Any] = {"selected_ids": frozenset({A}), **options}
    selection = select_servers([server], Situation(**given))
    assert [drop.reason for drop in selection.dropped] == ([] if reason is None else [reason])
    assert len(selection.kept) == (1 if reason is None else 0)


def test_a_selected_server_that_is_gone_is_dropped_by_its_id() -> None:
    selection = select_servers([make_server()], Situation(frozenset({A, B})))
    assert [(drop.reason, drop.server_id) for drop in selection.dropped] == [("not_found", B)]


def test_a_server_given_twice_is_kept_once() -> None:
    twice = [make_server(), make_server()]
    assert len(select_servers(twice, Situation(frozenset({A}))).kept) == 1
