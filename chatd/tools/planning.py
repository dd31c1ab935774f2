"""The tools of plan mode: what the model is told of them, and how their arguments are read."""

from dataclasses import dataclass
from typing import Any, cast

from chatd.core.files import safe_name
from chatd.core.plans import MAX_PLAN_BYTES
from chatd.core.text import clean
from chatd.core.tools import BuiltinTool, JsonObject, ToolResult, ToolSpec

MAX_QUESTIONS = 4
MIN_OPTIONS, MAX_OPTIONS = 2, 4
MAX_TITLE = 100
"""Characters of a plan's title that its file is named for."""

ASKED = "The user has been asked. Their answer is the next message; this turn ends here."


def _tool(
    name: str, title: str, description: str, properties: JsonObject, *required: str
) -> BuiltinTool:
    spec = ToolSpec(
        name=name,
        title=title,
        description=description,
        input_schema=_object(properties, *required),
        read_only=True,
        idempotent=True,
        destructive=False,
    )
    # One after the other, so that the plan called for last is the newest.
    return BuiltinTool(
        spec, parallel=False, stop_after=True, root_only=True, only_in_plan_mode=True
    )


def _object(properties: JsonObject, *required: str) -> JsonObject:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


_OPTION = _object(
    {
        "label": {"type": "string", "description": "A few words: what is chosen."},
        "description": {"type": "string", "description": "What choosing it means."},
    },
    "label",
    "description",
)
_QUESTION = _object(
    {
        "header": {"type": "string", "description": "One to three words that name the matter."},
        "question": {"type": "string", "description": "The question, complete in itself."},
        "options": {
            "type": "array",
            "items": _OPTION,
            "minItems": MIN_OPTIONS,
            "maxItems": MAX_OPTIONS,
            "description": "Answers to choose from; the user may also answer in other words.",
        },
    },
    "header",
    "question",
    "options",
)

PLANNING_TOOLS: tuple[BuiltinTool, ...] = (
    _tool(
        "propose_plan",
        "Propose a plan",
        "Give the user the finished plan. It ends your turn: the user reads the plan, and approves "
        "it or says what has to change. Propose all of it each time, not only what changed.",
        {
            "title": {"type": "string", "description": "A few words that name the plan."},
            "content": {
                "type": "string",
                "description": f"The whole plan in Markdown, at most {MAX_PLAN_BYTES // 1024} KiB.",
            },
        },
        "content",
    ),
    _tool(
        "ask_user_question",
        "Ask the user",
        "Ask the user what only they can decide. It ends your turn: their answer is the next "
        "message. Ask everything at once.",
        {
            "questions": {
                "type": "array",
                "items": _QUESTION,
                "minItems": 1,
                "maxItems": MAX_QUESTIONS,
            }
        },
        "questions",
    ),
)


@dataclass(frozen=True, slots=True)
class Proposal:
    """`name` is None when the plan has no title that a file could be named for."""

    name: str | None
    content: str


def read_proposal(arguments: JsonObject) -> Proposal | ToolResult:
    """Checked arguments, or what is wrong with them."""
    title, content = arguments.get("title"), arguments.get("content")
    if title is not None and not isinstance(title, str):
        return _wrong("title must be a string.")
    if not isinstance(content, str) or not content.strip():
        return _wrong("content must be the plan, as a string that says something.")
    content = clean(content)
    size = len(content.encode())
    if size > MAX_PLAN_BYTES:
        return _wrong(f"content has {size} bytes, and a plan has at most {MAX_PLAN_BYTES}.")
    return Proposal(_file_name(title or ""), content)


def read_questions(arguments: JsonObject) -> ToolResult | None:
    """What is wrong with them; None when they can be asked."""
    questions = _list(arguments.get("questions"))
    if questions is None or not 1 <= len(questions) <= MAX_QUESTIONS:
        return _wrong(f"questions must be a list of 1 to {MAX_QUESTIONS} questions.")
    for place, question in enumerate(questions):
        problem = _question_problem(question)
        if problem is not None:
            return _wrong(f"questions[{place}]{problem}")
    return None


def _question_problem(question: Any) -> str | None:
    missing = _missing(question, "header", "question")
    if missing is not None:
        return missing
    options = _list(question.get("options"))
    if options is None or not MIN_OPTIONS <= len(options) <= MAX_OPTIONS:
        return f".options must be a list of {MIN_OPTIONS} to {MAX_OPTIONS} options."
    for place, option in enumerate(options):
        problem = _missing(option, "label", "description")
        if problem is not None:
            return f".options[{place}]{problem}"
    return None


def _missing(value: Any, *names: str) -> str | None:
    if not isinstance(value, dict):
        return " must be an object."
    fields = cast(JsonObject, value)
    for name in names:
        said = fields.get(name)
        if not isinstance(said, str) or not said.strip():
            return f".{name} must be a string that says something."
    return None


def _list(value: object) -> list[Any] | None:
    return cast(list[Any], value) if isinstance(value, list) else None


def _file_name(title: str) -> str | None:
    title = " ".join(title.replace("/", "-").replace("\\", "-").split())[:MAX_TITLE]
    name = safe_name(title.removesuffix(".md"))
    return f"{name}.md" if name else None


def _wrong(text: str) -> ToolResult:
    return ToolResult(text, is_error=True, outcome="failed")
