"""How the words of models, tools and servers are shown: bounded, and never taken for ours."""

SHOWN = 300
"""Characters of a tool's arguments or result."""


def short(text: str) -> str:
    """On one line, and not all of it."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else f"{line[:SHOWN]} … ({len(text)} characters)"


def quoted(text: str) -> str:
    """Each line marked, so that none of them passes for one of ours."""
    return "\n".join(f"│ {line}" for line in text.splitlines() or [""])
