"""The `chat` command: where to send the message, what to say with it, what to show."""

import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from chatd.cli.chat import plans
from chatd.cli.chat.asking import Approve, Asking
from chatd.cli.chat.conversation import Conversation
from chatd.cli.chat.screen import Screen
from chatd.cli.chat.watching import Ended, Watching, print_event
from chatd.core.errors import ChatdError

Text = Annotated[
    str | None, typer.Argument(help="What to say; - reads it from stdin. Without: a prompt.")
]
Chat = Annotated[str | None, typer.Option(help="Go on with this chat.")]
Plan = Annotated[bool | None, typer.Option("--plan/--no-plan", help="Plan mode, from now on.")]
Model = Annotated[str | None, typer.Option(help="A model's name or config id.")]
Json = Annotated[bool, typer.Option("--json", help="Print the events, a line of JSON each.")]
Url = Annotated[str | None, typer.Option(envvar="CHATD_URL", help="Where chatd is.")]
Token = Annotated[str | None, typer.Option(envvar="CHATD_TOKEN", help="An API token.")]
Approval = Annotated[Approve | None, typer.Option(help="Decide about tool calls without asking.")]
DataDir = Annotated[
    Path, typer.Option(help="Without URL and token: the data directory of a `chatd dev`.")
]


class Nowhere(ChatdError):
    """There is no server, model or text to go on with."""

    code = "usage"


def chat(
    text: Text = None,
    chat: Chat = None,
    plan: Plan = None,
    model: Model = None,
    json: Json = False,
    url: Url = None,
    token: Token = None,
    approve: Approval = None,
    data_dir: DataDir = Path(".chatd"),
) -> None:
    """Say something and watch the answer stream in.

    /approve-plan carries the newest plan out. At the prompt, /plan on and /plan off switch.

    In a terminal you are asked what the turn needs of you; elsewhere, and with --json, the command
    says what it waits for and ends with 3. It ends with 1 when the turn did not complete, with 130
    when Ctrl-C stopped it.
    """
    url, token = _where(url, token, data_dir)
    with closing(Conversation(url, token, chat)) as conversation:
        options: dict[str, Any] = {}
        if plan is not None:
            options["plan_mode"] = "plan" if plan else ""
        if model is not None:
            options["model_config_id"] = _model(conversation, model)
        # A prompt that goes into a file asks nobody.
        person = not json and sys.stdin.isatty() and sys.stdout.isatty()
        if person:
            options["on_auth_required"] = "wait"
        watching = _watching(conversation, approve, json=json, person=person)
        if text is None:
            ended = _converse(watching, options)
        else:
            said = sys.stdin.read() if text == "-" else text
            ended = _say(watching, said, options)
        if conversation.chat_id is not None and not json:
            Screen().line(f"\nTo go on: chatd chat --chat {conversation.chat_id}", style="dim")
    if ended is not Ended.COMPLETED:
        raise typer.Exit(ended.status)


def _watching(
    conversation: Conversation, approve: Approve | None, *, json: bool, person: bool
) -> Watching:
    screen = Screen()
    asking = Asking(screen, conversation, person=person, approve=approve)
    return Watching(conversation, screen, asking, print_event if json else None)


def _where(url: str | None, token: str | None, data_dir: Path) -> tuple[str, str]:
    if url and token:
        return url, token
    if url:
        # Nobody else's server gets the token of the one that runs here.
        raise Nowhere("A token is needed.", detail="Set CHATD_TOKEN, or use --token.")
    file = data_dir / "dev.json"
    if not file.exists():
        raise Nowhere(
            "There is no chatd to talk to.",
            detail=f"Start `chatd dev` ({file} is not there), or set CHATD_URL and CHATD_TOKEN.",
        )
    described = orjson.loads(file.read_bytes())
    return described["url"], token or described["member_token"]


def _model(conversation: Conversation, wanted: str) -> str:
    models = conversation.models()
    for model in models:
        if wanted in (model["id"], model["model"], model["display_name"]):
            return model["id"]
    names = ", ".join(model["model"] for model in models) or "none"
    raise Nowhere(f"There is no model {wanted}.", detail=f"There are: {names}.")


def _converse(watching: Watching, options: dict[str, Any]) -> Ended:
    """A turn for each line. What goes wrong with one is said, and the next may be better."""
    ended = Ended.COMPLETED
    for line in _lines():
        mode = plans.SWITCHES.get(" ".join(line.split()))
        if mode is not None:
            options["plan_mode"] = mode
            continue
        try:
            ended = _say(watching, line, options)
        except ChatdError as error:
            ended = Ended.FAILED
            Screen().aside(f"{error.message} {error.detail}".strip(), style="red")
        if ended in (Ended.WAITING, Ended.LEFT):
            break  # whatever is said now queues behind it
    return ended


def _lines() -> Iterator[str]:
    prompt = "> " if sys.stdin.isatty() else ""
    while True:
        try:
            line = input(prompt)
        except (EOFError, KeyboardInterrupt):
            return
        if line.strip():
            yield line


def _say(watching: Watching, text: str, options: dict[str, Any]) -> Ended:
    if not text.strip():
        raise Nowhere("There is nothing to say.")
    more = plans.approval(text)
    if more is not None:
        ended = watching.approve_plan(more)
        options.pop("plan_mode", None)  # or the next message would turn it on again
        return ended
    return watching.say({"content": [{"type": "text", "text": text}], **options})
