"""Every combination of what an administrator, a user and a turn can say, against a few plain lines.

The listing, the check before a call and the question for approval must all come to what the oracle
says. It knows nothing of how policy is written.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any
from uuid import UUID

from chatd.core.situation import Situation
from chatd.core.tools import OfferedTool
from chatd.policy.approvals import approval_required
from chatd.policy.offer import offer
from chatd.policy.servers import select_servers
from chatd.policy.tools import tool_refusal
from tests.policy.made import make_server, make_spec

SERVER, GROUP, OTHERS = UUID(int=1), UUID(int=7), UUID(int=8)
TOOL = "add"

CHOICES: dict[str, tuple[Any, ...]] = {
    "availability": ("force_on", "default_on", "default_off"),
    "enabled": (True, False),
    "selected": (True, False),
    "plan": (True, False),
    "child": (True, False),
    "server_flag": (True, False),
    "tool_flag": ("allow", "deny", "inherit", None),
    "allow": ((), (TOOL,), ("other",)),
    "deny": ((), (TOOL,), ("other",)),
    "group": ("everyone", "in", "out"),
    "trust": (True, False),
}


@dataclass(frozen=True, slots=True)
class Case:
    availability: str
    enabled: bool
    selected: bool
    plan: bool
    child: bool
    server_flag: bool
    tool_flag: str | None
    allow: tuple[str, ...]
    deny: tuple[str, ...]
    group: str
    trust: bool

    def usable(self) -> bool:
        """The oracle."""
        here = self.enabled and (self.selected or self.availability == "force_on")
        planned = self.tool_flag == "allow" or (self.tool_flag != "deny" and self.server_flag)
        fits = not self.plan or (planned and not self.child)
        named = TOOL not in self.deny and (not self.allow or TOOL in self.allow)
        return here and self.group != "out" and fits and named


def cases() -> Iterator[Case]:
    return (Case(*values) for values in product(*CHOICES.values()))


def test_listing_call_and_approval_come_to_the_same_in_every_case() -> None:
    wrong = [case for case in cases() if not _as_the_oracle_says(case)]
    assert wrong == []


def test_the_table_is_whole() -> None:
    usable = sum(case.usable() for case in cases())
    assert 0 < usable < 20_736 == sum(1 for _ in cases())


def _as_the_oracle_says(case: Case) -> bool:
    settings = {} if case.tool_flag is None else {TOOL: {"plan_mode": case.tool_flag}}
    server = make_server(
        availability=case.availability,
        enabled=case.enabled,
        allow_in_plan_mode=case.server_flag,
        tool_settings=settings,
        tool_allow_list=frozenset(case.allow),
        tool_deny_list=frozenset(case.deny),
        access="everyone" if case.group == "everyone" else "groups",
        group_ids=frozenset({GROUP}),
        trust_annotations=case.trust,
        require_approval="unless_read_only",
    )
    situation = Situation(
        selected_ids=frozenset({SERVER} if case.selected else ()),
        plan_mode=case.plan,
        is_child=case.child,
        group_ids=frozenset({GROUP if case.group == "in" else OTHERS}),
    )
    spec = make_spec(TOOL, read_only=True)
    listed = [(kept, [spec]) for kept in select_servers([server], situation).kept]
    tools = offer(listed, plan_mode=case.plan).tools
    called = tool_refusal(_offered(), {SERVER: server}, situation)
    asked = [approval_required(tool, server) for tool in tools]
    expected = case.usable()
    return (
        bool(tools) is expected
        and (called is None) is expected
        and asked == ([not case.trust] if expected else [])
    )


def _offered() -> OfferedTool:
    return OfferedTool(f"demo__{TOOL}", TOOL, "", {}, server_id=SERVER)
