"""Why a server or a tool is not offered: stable codes, and a sentence for people."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Reason = Literal[
    "not_selected",
    "disabled",
    "not_in_group",
    "not_in_plan_mode",
    "tool_not_in_plan_mode",
    "only_in_plan_mode",
    "plan_sub_agent",
    "root_only",
    "explore_only_reads",
    "auth_required",
    "unusable_credentials",
    "forbidden",
    "not_found",
    "unreachable",
    "bad_answer",
    "denied",
    "not_in_allow_list",
    "unusable_name",
    "unusable_schema",
    "duplicate_name",
    "changed",
]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why something is not offered, and `rule`: which setting decided that, for administrators."""

    reason: Reason
    rule: str


SENTENCES: Mapping[Reason, str] = {
    "not_selected": "The chat does not use this server.",
    "disabled": "An administrator has disabled this server.",
    "not_in_group": "This server is for groups that the chat's owner is not a member of.",
    "not_in_plan_mode": "This server may not be used while planning.",
    "tool_not_in_plan_mode": "This tool may not be used while planning.",
    "only_in_plan_mode": "This tool is for planning.",
    "plan_sub_agent": "Sub-agents use no MCP servers while planning.",
    "root_only": "Sub-agents may not use this tool.",
    "explore_only_reads": "A chat that only explores may not use tools that change anything.",
    "auth_required": "Connect your account to use this server.",
    "unusable_credentials": "This server's credentials cannot be used; an administrator has to set"
    " them again.",
    "forbidden": "The server does not let this account in.",
    "not_found": "This server no longer exists.",
    "unreachable": "The server could not be reached.",
    "bad_answer": "The server gave an answer that could not be understood.",
    "denied": "An administrator has denied this tool.",
    "not_in_allow_list": "The administrator's allow list does not name this tool.",
    "unusable_name": "The tool has no name, or one that cannot be used.",
    "unusable_schema": "The tool's parameters are not a usable JSON Schema.",
    "duplicate_name": "Another tool already has this name.",
    "changed": "The tool is not what an administrator has seen; they have to accept the change.",
}
