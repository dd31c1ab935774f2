"""The built-in tools: what each says of itself and how it reads its arguments; no I/O."""

from chatd.core.tools import BuiltinTool
from chatd.tools.agents import AGENT_TOOLS
from chatd.tools.planning import PLANNING_TOOLS
from chatd.tools.results import READ_RESULT

BUILTINS: tuple[BuiltinTool, ...] = (READ_RESULT, *AGENT_TOOLS, *PLANNING_TOOLS)
"""All of them; policy decides which a turn is offered."""
