"""Sub-agents: chats that another chat's turn starts, speaks to and waits for."""

from dataclasses import dataclass
from typing import Literal, get_args
from uuid import UUID

from chatd.core.budget import cap
from chatd.core.tools import JsonObject

AgentType = Literal["general", "explore"]
AGENT_TYPES: tuple[str, ...] = get_args(AgentType)

MAX_ACTIVE = 8
"""Sub-agents of one chat at work at the same time."""
MAX_SPAWNED = 20
"""Sub-agents that one turn may start."""

WAIT_S = 300
MAX_WAIT_S = 3600

MAX_TEXT = 64 * 1024
"""Bytes of a sub-agent's last words that its parent is told."""
MAX_LISTED_TEXT = 512

USER_SPOKE = "The user has sent a message: end your turn soon, so that you can read it."
TIMED_OUT = "It is still at work. Wait again, or go on with something else."
ASKS_USER = "It waits for the user to answer or to approve something."


@dataclass(frozen=True, slots=True)
class NewAgent:
    """What a turn asks for. `model_config_id` None: the model of that turn."""

    chat_id: UUID
    turn_id: UUID
    type: AgentType
    prompt: str
    title: str | None = None
    model_config_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Agent:
    """A sub-agent as its parent sees it.

    `status` is its turn's: the active one's, else the last one's; or `queued`, `idle`, `archived`,
    `deleted`. `settled`: nothing more comes of it until somebody speaks to it or acts.
    """

    chat_id: UUID
    type: AgentType
    title: str
    status: str
    settled: bool
    text: str = ""
    error: str = ""

    def started(self) -> JsonObject:
        """What the model reads of one it has started or spoken to."""
        return {"chat_id": str(self.chat_id), "title": self.title, "status": self.status}

    def listed(self) -> JsonObject:
        text = cap(self.text, MAX_LISTED_TEXT, what="answer")
        return {**self.started(), "type": self.type, "last_text": text}

    def report(self, reason: str = "") -> JsonObject:
        """What a wait for it answers; `reason`: why it ended although the agent has not."""
        if self.status == "requires_action":
            reason = ASKS_USER
        report: JsonObject = {
            "chat_id": str(self.chat_id),
            "status": self.status if self.settled else "running",
            "text": cap(self.text, MAX_TEXT, what="answer"),
        }
        if reason:
            report["reason"] = reason
        if self.error:
            report["error"] = self.error
        return report


def gone(chat_id: UUID) -> Agent:
    """One whose chat was deleted."""
    return Agent(chat_id, "general", "", "deleted", settled=True)
