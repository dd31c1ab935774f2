"""Failures on the command line: one line on stderr, exit code 1, never a traceback for users."""

from typing import Any

import asyncpg
import typer
from rich.console import Console
from sqlalchemy.exc import DBAPIError
from typer.core import TyperGroup

from chatd.core.errors import ChatdError
from chatd.core.redaction import redact_text


class Friendly(TyperGroup):
    """A group of commands that says what is wrong instead of showing where."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            said = _sentence(error)
            if said is None:
                raise
            Console(stderr=True).print(said, style="red", markup=False, highlight=False)
            raise typer.Exit(1) from None


def _sentence(error: Exception) -> str | None:
    """None for a defect of ours: that one deserves its traceback."""
    if isinstance(error, ChatdError):
        return f"{error.message}\n{error.detail}".strip()
    if isinstance(error, DBAPIError | asyncpg.PostgresError):
        return f"The database says: {redact_text(str(getattr(error, 'orig', error)))}"
    if isinstance(error, OSError):
        return redact_text(str(error))
    return None
