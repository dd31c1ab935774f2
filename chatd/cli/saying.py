"""What commands say: news on stderr, tables on stdout, where scripts look for what they want."""

from rich.console import Console
from rich.table import Table

_WIDE = 200
"""Columns of a table that goes into a file: nothing is cut."""


def say(text: str) -> None:
    Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)


def show(table: Table) -> None:
    console = Console()
    if not console.is_terminal:
        console.width = _WIDE
    console.print(table, markup=False)
