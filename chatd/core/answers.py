"""A model's answer as it grows: deltas in, parts and calls out."""

from dataclasses import dataclass, field

from chatd.core.deltas import Delta, Finished, IntentDelta, ReasoningDelta, TextDelta, ToolCallDelta
from chatd.core.messages import Part, ReasoningPart, TextPart, ToolCallPart, Usage
from chatd.core.tools import ToolCall


@dataclass(slots=True)
class Answer:
    """What one attempt has said so far."""

    text: list[str] = field(default_factory=list[str])
    reasoning: list[str] = field(default_factory=list[str])
    calls: list[tuple[str, str, list[str]]] = field(
        default_factory=list[tuple[str, str, list[str]]]
    )
    intents: dict[int, str] = field(default_factory=dict[int, str])
    """What calls are for, by index."""
    usage: Usage | None = None
    response_id: str = ""
    reason: str = ""

    def add(self, delta: Delta) -> None:
        match delta:
            case TextDelta(text):
                self.text.append(text)
            case ReasoningDelta(text):
                self.reasoning.append(text)
            case ToolCallDelta(index, call_id, name, arguments):
                if index == len(self.calls):
                    self.calls.append((call_id, name, []))
                self.calls[index][2].append(arguments)
            case IntentDelta(index, intent):
                self.intents[index] = intent
            case Finished(reason, usage, response_id):
                self.reason, self.usage, self.response_id = reason, usage, response_id
            case _:
                pass

    def tool_calls(self) -> list[ToolCall]:
        return [ToolCall(call_id, name, "".join(pieces)) for call_id, name, pieces in self.calls]

    def parts(self, *, calls: bool = True) -> list[Part]:
        """Reasoning, text, then the calls; without `calls` only what can stand unfinished."""
        parts: list[Part] = []
        if self.reasoning:
            parts.append(ReasoningPart(type="reasoning", text="".join(self.reasoning)))
        if self.text:
            parts.append(TextPart(type="text", text="".join(self.text)))
        if calls:
            parts += [self._call_part(*each) for each in enumerate(self.tool_calls())]
        return parts

    def _call_part(self, index: int, call: ToolCall) -> ToolCallPart:
        part = ToolCallPart(
            type="tool-call", tool_call_id=call.id, tool_name=call.name, args=call.arguments
        )
        if index in self.intents:
            part["intent"] = self.intents[index]
        return part
