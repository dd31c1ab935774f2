"""`chatd admin`: users and tokens, straight in the database."""

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated
from uuid import UUID

import typer
from rich.table import Table
from sqlmodel.ext.asyncio.session import AsyncSession

from chatd import audit
from chatd.audit import By, Target
from chatd.cli.admin_keys import list_keys, rotate_keys
from chatd.cli.admin_models import create_model
from chatd.cli.admin_people import (
    activate_user,
    add_member,
    create_group,
    link_user,
    list_groups,
    remove_member,
    suspend_user,
)
from chatd.cli.database import in_transaction
from chatd.cli.friendly import Friendly
from chatd.cli.saying import say, show
from chatd.settings import DatabaseSettings, load
from chatd.store import tokens, users
from chatd.store.tokens import Token
from chatd.store.users import User

DAYS = 365
"""How long a token lives when nobody says."""

app = typer.Typer(cls=Friendly, no_args_is_help=True, help="People, tokens, models and keys.")
for _command in (
    suspend_user,
    activate_user,
    link_user,
    create_group,
    list_groups,
    add_member,
    remove_member,
    create_model,
    rotate_keys,
    list_keys,
):
    app.command()(_command)

Username = Annotated[str, typer.Argument(help="The user's name to sign in with.")]
Days = Annotated[int, typer.Option(min=0, max=36_500, help="Until it expires; 0: never.")]
TokenName = Annotated[str, typer.Option(help="What the token is for.")]


class Role(StrEnum):
    admin = "admin"
    member = "member"


@app.command()
def create_user(
    username: Username,
    role: Annotated[Role, typer.Option(help="What the user may do.")] = Role.member,
    name: Annotated[str, typer.Option(help="The name to show.")] = "",
    token: Annotated[bool, typer.Option("--token", help="Print a token for the user.")] = False,
    days: Days = DAYS,
) -> None:
    """Create a user. With --token, the token stands alone on stdout: it is shown once."""
    text = tokens.new_token() if token else None

    async def work(session: AsyncSession) -> User:
        user = await users.create_user(session, username, role=role.value, name=name)
        shown = {"username": user.username, "role": user.role}
        audit.record(session, By(), "create", Target("user", user.id), after=shown)
        if text is not None:
            await _add_token(session, user, text, "first token", days)
        return user

    user = in_transaction(load(DatabaseSettings), work)
    say(f"Created the {user.role} {user.username} ({user.id}).")
    if text is not None:
        typer.echo(text)


@app.command()
def create_token(username: Username, name: TokenName = "", days: Days = DAYS) -> None:
    """Create a token. It stands alone on stdout and is shown once."""
    text = tokens.new_token()

    async def work(session: AsyncSession) -> Token:
        return await _add_token(session, await users.get_user(session, username), text, name, days)

    token = in_transaction(load(DatabaseSettings), work)
    say(f"Created the token {token.id} for {username}, {_until(token.expires_at)}.")
    typer.echo(text)


@app.command()
def revoke_token(
    token_id: Annotated[UUID, typer.Argument(help="Its id, as list-tokens shows it.")],
) -> None:
    """Revoke a token: it stops working at once."""

    async def work(session: AsyncSession) -> None:
        owner = await tokens.revoke_token(session, token_id)
        if owner is not None:
            told = {"user_id": str(owner)}
            audit.record(session, By(), "revoke", Target("api_token", token_id), before=told)

    in_transaction(load(DatabaseSettings), work)
    say(f"Revoked the token {token_id}.")


@app.command()
def list_users() -> None:
    """List all users."""
    table = Table("username", "name", "role", "suspended", "created", "id")
    for user in in_transaction(load(DatabaseSettings), users.list_users):
        suspended = "yes" if user.suspended else ""
        created = f"{user.created_at:%Y-%m-%d %H:%M}"
        table.add_row(user.username, user.name, user.role, suspended, created, str(user.id))
    show(table)


@app.command()
def list_tokens(username: Username) -> None:
    """List a user's tokens, also those that no longer work."""

    async def work(session: AsyncSession) -> list[Token]:
        return await tokens.list_tokens(session, (await users.get_user(session, username)).id)

    table = Table("id", "name", "created", "last used", "state")
    now = datetime.now(UTC)
    for token in in_transaction(load(DatabaseSettings), work):
        used = f"{token.last_used_at:%Y-%m-%d %H:%M}" if token.last_used_at else "never"
        created = f"{token.created_at:%Y-%m-%d %H:%M}"
        table.add_row(str(token.id), token.name, created, used, _state(token, now))
    show(table)


async def _add_token(session: AsyncSession, user: User, text: str, name: str, days: int) -> Token:
    expires_at = datetime.now(UTC) + timedelta(days=days) if days else None
    token = await tokens.create_token(session, user.id, text, name=name, expires_at=expires_at)
    shown = {"user_id": str(user.id), "name": name}
    audit.record(session, By(), "create", Target("api_token", token.id), after=shown)
    return token


def _state(token: Token, now: datetime) -> str:
    if token.revoked_at is not None:
        return "revoked"
    if token.expires_at is not None and token.expires_at <= now:
        return "expired"
    return _until(token.expires_at)


def _until(expires_at: datetime | None) -> str:
    return f"valid until {expires_at:%Y-%m-%d}" if expires_at else "valid for ever"
