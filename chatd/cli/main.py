"""`chatd`: the commands, one file each."""

import typer

from chatd.cli import admin
from chatd.cli.api import api
from chatd.cli.dev import dev
from chatd.cli.friendly import Friendly
from chatd.cli.migrate import migrate
from chatd.cli.worker import worker

app = typer.Typer(
    cls=Friendly,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Chats with tools, in the background: front door, workers, and their administration.",
)
app.command()(dev)
app.command()(api)
app.command()(worker)
app.command()(migrate)
app.add_typer(admin.app, name="admin")
