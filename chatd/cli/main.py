"""`chatd`: the commands, one file each, imported when they are used."""

from importlib import import_module
from typing import Any

import typer
from typer.main import get_command

from chatd.cli.friendly import Friendly

# Together they import every library we have, which takes seconds; `chat` needs but a few.
COMMANDS = {
    "dev": "chatd.cli.dev",
    "chat": "chatd.cli.chat",
    "api": "chatd.cli.api",
    "worker": "chatd.cli.worker",
    "migrate": "chatd.cli.migrate",
    "admin": "chatd.cli.admin",
}
"""Where each is: a function of the command's own name, or a group called `app`."""


class Commands(Friendly):
    """The table above as a group of commands."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(COMMANDS[cmd_name])
        group: typer.Typer | None = getattr(module, "app", None)
        if group is None:
            group = typer.Typer(add_completion=False)
            group.command()(getattr(module, cmd_name))
        command = get_command(group)
        command.name = cmd_name
        return command


app = typer.Typer(cls=Commands, add_completion=False, pretty_exceptions_enable=False)


@app.callback(no_args_is_help=True)
def chatd() -> None:
    """Chats with tools, in the background: front door, workers, and their administration."""
