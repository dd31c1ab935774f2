"""What a person sees: the answer as it arrives, in colour on a terminal and plain elsewhere."""

from rich.console import Console
from rich.status import Status

from chatd.core.text import INVISIBLE, clean

_WIDEST = 200
"""Characters beside the spinner."""


class Screen:
    """The answer goes to stdout, asides to stderr; a spinner only where somebody looks."""

    def __init__(self) -> None:
        self._out = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
        self._aside = Console(
            stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False
        )
        self._spinner: Status | None = None
        self._why = ""
        self._midline = False

    def wait(self, why: str) -> None:
        """Spin until something is written. Not in the middle of a line: text comes next there."""
        if not self._out.is_terminal or self._midline:
            return
        if self._spinner is None:
            self._spinner = self._out.status("")
            self._spinner.start()
        self._why = why
        # On one line, or each turn of the spinner leaves the others behind.
        self._spinner.update(" ".join(_clean(why).split())[:_WIDEST])

    def rest(self) -> None:
        """Stop spinning, and begin a new line if the last one has no end."""
        self._still()
        if self._midline:
            self._midline = False
            self._out.print()

    def text(self, piece: str) -> None:
        """More of the answer; a line is not ended before the answer ends it."""
        piece = _clean(piece)
        if piece:
            self._still()
            self._out.print(piece, end="")
            self._out.file.flush()
            self._midline = not piece.endswith("\n")

    def line(self, text: str, style: str = "") -> None:
        self.rest()
        self._out.print(_clean(text), style=style)

    def aside(self, text: str, style: str = "yellow") -> None:
        """Something that is no part of the conversation; what spun goes on spinning."""
        spun = self._spinner is not None
        self.rest()
        self._aside.print(_clean(text), style=style)
        if spun:
            self.wait(self._why)

    def ask(self, prompt: str) -> str:
        """A line of the person's. Raises `EOFError` for Ctrl-D."""
        self.rest()
        try:
            return clean(input(_clean(prompt)))
        except (EOFError, KeyboardInterrupt):
            self._out.print()
            raise

    def _still(self) -> None:
        if self._spinner is not None:
            self._spinner.stop()
            self._spinner = None


def _clean(text: str) -> str:
    """Models and tools must not steer a terminal, nor hide what a person is asked to approve."""
    return INVISIBLE.sub("", text).replace("\r", "")
