"""`chatd admin`: suspending users, their logins, and groups, straight in the database.

Streams and running turns find out by themselves, within five seconds.
"""

from typing import Annotated
from uuid import UUID

import typer
from rich.table import Table
from sqlmodel.ext.asyncio.session import AsyncSession

from chatd import audit
from chatd.audit import By, Target
from chatd.cli.database import in_database, in_transaction
from chatd.cli.saying import say, show
from chatd.core.errors import BadRequest
from chatd.settings import DatabaseSettings, LoginSettings, load
from chatd.store import groups, policy_state, users
from chatd.store.db import Database
from chatd.store.suspending import end_work, resume_queues
from chatd.store.user_links import add_link

Username = Annotated[str, typer.Argument(help="The user's name to sign in with.")]
GroupName = Annotated[str, typer.Argument(help="The group's name.", show_default=False)]


def suspend_user(username: Username) -> None:
    """Suspend a user: tokens stop working at once, streams close, turns stop."""
    in_database(load(DatabaseSettings), lambda db: _suspend(db, username, suspended=True))
    say(f"Suspended {username}.")


def activate_user(username: Username) -> None:
    """Let a suspended user in again: their tokens work as before."""
    in_database(load(DatabaseSettings), lambda db: _suspend(db, username, suspended=False))
    say(f"Activated {username}.")


def link_user(
    username: Username,
    subject: Annotated[str, typer.Argument(help="Their `sub` at the OpenID provider.")],
    issuer: Annotated[
        str, typer.Option(help="As the provider names itself; else CHATD_OIDC_ISSUER.")
    ] = "",
) -> None:
    """Let a user who is here already sign in with an OpenID provider."""
    issuer = issuer or load(LoginSettings).oidc_issuer
    if not issuer or not subject:
        raise BadRequest("Say which subject at which issuer.")

    async def work(session: AsyncSession) -> None:
        user = await users.get_user(session, username)
        await add_link(session, user.id, issuer=issuer, subject=subject, claims={})
        told = {"issuer": issuer, "subject": subject}
        audit.record(session, By(), "link", Target("user", user.id), after=told)

    in_transaction(load(DatabaseSettings), work)
    say(f"{username} signs in at {issuer}.")


def create_group(
    name: GroupName,
    description: Annotated[str, typer.Option(help="Who belongs to it.")] = "",
) -> None:
    """Create a group. Prints its id."""

    async def work(session: AsyncSession) -> UUID:
        made = await groups.create_group(session, name, description)
        told = {"name": name, "description": description}
        audit.record(session, By(), "create", Target("group", made), after=told)
        return made

    typer.echo(in_transaction(load(DatabaseSettings), work))


def add_member(group: GroupName, username: Username) -> None:
    """Put a user into a group; harmless for one who is in it."""
    _change_member(group, username, member=True)
    say(f"{username} is a member of {group}.")


def remove_member(group: GroupName, username: Username) -> None:
    """Take a user out of a group; harmless for one who is not in it."""
    _change_member(group, username, member=False)
    say(f"{username} is not a member of {group}.")


def list_groups() -> None:
    """List all groups."""
    table = Table("name", "members", "servers", "description", "id")
    for group in in_database(load(DatabaseSettings), groups.list_groups):
        counts = str(group["member_count"]), str(len(group["server_ids"]))
        table.add_row(group["name"], *counts, group["description"], group["id"])
    show(table)


async def _suspend(db: Database, username: str, *, suspended: bool) -> None:
    async with db.transaction() as session:
        await policy_state.bump(session)
        user = await users.get_user(session, username)
        before, after = await users.update_user(session, user.id, {"suspended": suspended})
        if before != after:
            told = {"before": before.told(), "after": after.told()}
            audit.record(session, By(), "update", Target("user", user.id), **told)
    work = end_work if suspended else resume_queues
    async for _ in work(db, user.id):
        continue


def _change_member(group: str, username: str, *, member: bool) -> None:
    change = groups.add_member if member else groups.remove_member

    async def work(session: AsyncSession) -> None:
        await policy_state.bump(session)
        group_id = await groups.find_group(session, group)
        user = await users.get_user(session, username)
        if await change(session, group_id, user.id):
            told = {"user_id": str(user.id)}
            if member:
                audit.record(session, By(), "add_member", Target("group", group_id), after=told)
            else:
                audit.record(session, By(), "remove_member", Target("group", group_id), before=told)

    in_transaction(load(DatabaseSettings), work)
