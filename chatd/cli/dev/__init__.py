"""`chatd dev`: everything on this machine, from nothing, until Ctrl-C."""

from chatd.cli.dev.command import dev

__all__ = ["dev"]
