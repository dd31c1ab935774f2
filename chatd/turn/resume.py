"""Where a turn stands when it is claimed: at its beginning, or where another worker left it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import cast

from chatd.core.messages import HistoryMessage, ToolCallPart, ToolResultPart
from chatd.core.tools import OfferedTool, ToolResult
from chatd.core.work import JournalEntry, LoadedTurn, PlannedCall, StoredMessage
from chatd.loop import OpenStep, Start

UNKNOWN = (
    "It is not known whether this call took effect: the worker was lost after sending it. It was"
    " not repeated. Check before you call it again."
)

_CLOSED = ("done", "failed", "unknown", "denied", "cancelled")


def resume(turn: LoadedTurn, tools: Mapping[str, OfferedTool]) -> Start:
    """The loop's start from the history and the journal.

    A call that waited for an item goes on. One that had left and has no answer runs again only if
    it was declared safe; otherwise its outcome is unknown, and the model is told.
    """
    history = [HistoryMessage(role=m["role"], content=m["content"]) for m in turn.history]
    own = [m for m in turn.history if m["step"] is not None and not m.get("compressed")]
    answers = [message for message in own if message["role"] == "assistant"]
    if not answers:
        return Start(history, next_step=_first_step(turn.history))
    last = answers[-1]
    step = cast(int, last["step"])
    answered = [message for message in own if message["role"] == "tool" and message["step"] == step]
    calls = _calls(last)
    if not calls or len(answered) >= len(calls):
        over = any(_ended(message, tools) for message in answered)
        return Start(history, next_step=step + 1, made=_made(answers), over=over)
    entries = [entry for entry in turn.journal if entry.step == step]
    open_step = OpenStep(
        step=step,
        open=[_planned(entry, tools) for entry in entries if _to_run(entry)],
        answered=[
            (_planned(entry, tools), _known(entry)) for entry in entries if not _to_run(entry)
        ],
    )
    # The loop counts the calls it makes itself.
    made = _made(answers[:-1]) + Counter(
        {_key(planned) for planned, _ in open_step.answered}
        - {_key(planned) for planned in open_step.open}
    )
    return Start(history, next_step=step + 1, open_step=open_step, made=made)


def _ended(message: HistoryMessage, tools: Mapping[str, OfferedTool]) -> bool:
    """Whether it is the result of a tool that ends the turn: the worker was lost before the end."""
    results = [part for part in message["content"] if part["type"] == "tool-result"]
    ending = {tool.name for tool in tools.values() if tool.stop_after}
    return any(part["tool_name"] in ending and not part["is_error"] for part in results)


def _first_step(history: Sequence[StoredMessage]) -> int:
    """After a compaction the step it was made for; the calls before it are forgotten."""
    return max((m["step"] or 1 for m in history if m.get("compressed")), default=1)


def _made(answers: Sequence[HistoryMessage]) -> Counter[tuple[str, str]]:
    """In how many steps each very call was made."""
    made = Counter[tuple[str, str]]()
    for message in answers:
        made.update({(call["tool_name"], call["args"]) for call in _calls(message)})
    return made


def _key(planned: PlannedCall) -> tuple[str, str]:
    return planned.call.name, planned.call.arguments


def _calls(message: HistoryMessage) -> list[ToolCallPart]:
    return [part for part in message["content"] if part["type"] == "tool-call"]


def _planned(entry: JournalEntry, tools: Mapping[str, OfferedTool]) -> PlannedCall:
    """Another server's tool under the same name is not the one that was asked for."""
    tool = tools.get(entry.call.name)
    if tool is not None and tool.server_id != entry.server_id:
        tool = None
    return PlannedCall(entry.call, entry.step, entry.position, tool)


def _to_run(entry: JournalEntry) -> bool:
    return entry.state in ("intended", "waiting") or (entry.state == "sent" and entry.safe)


def _known(entry: JournalEntry) -> ToolResult:
    if entry.state in _CLOSED and entry.result is not None:
        part = cast(ToolResultPart, entry.result)
        media = tuple(part.get("media", ()))
        return ToolResult(part["result"], part["is_error"], media, outcome=entry.state)
    return ToolResult(UNKNOWN, is_error=True, outcome="unknown")
