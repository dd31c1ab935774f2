"""`chatd admin rotate-keys`, `list-keys`: which keys encrypt what; all of it with the newest."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from chatd import audit, logs
from chatd.audit import By, Target
from chatd.cli.saying import say, show
from chatd.rotation import Rotated, outdated, rotate
from chatd.settings import StoreSettings, load
from chatd.store import keys as store
from chatd.store.db import Database
from chatd.store.keys import KeyUse, KnownKey, OtherKey
from chatd.store.secrets import KeyRing

T = TypeVar("T")

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what there is to do.")]


def rotate_keys(dry_run: DryRun = False) -> None:
    """Encrypt every secret with the first of CHATD_ENCRYPTION_KEYS, while everything runs.

    Stopped, it goes on where it was. Exit code 1: something is still encrypted with another key.
    """
    settings = load(StoreSettings)
    keys = KeyRing(settings.keys())
    if dry_run:
        uses = _run(settings, keys, store.list_uses)
        show(_by_column(uses, keys))
        say(f"{outdated(uses, keys.writer)} values are not encrypted with {keys.writer}.")
        return
    done = _run(settings, keys, lambda db: _rotate(db, keys))
    say(f"Encrypted {done.values} values with {keys.writer}.")
    if done.changed:
        say(f"{done.changed} were changed meanwhile and left alone.")
    for (column, _), why in done.unreadable.items():
        say(f"Not readable: {why} ({column})")
    if done.left:
        say(f"{done.left} are encrypted with other keys: run it again.")
    if done.left or done.unreadable:
        raise typer.Exit(1)


def list_keys() -> None:
    """Show which keys are in use, by how many values, and whether we can read them."""
    settings = load(StoreSettings)
    keys = KeyRing(settings.keys())

    async def read(db: Database) -> tuple[list[KnownKey], list[KeyUse]]:
        return await store.list_keys(db), await store.list_uses(db)

    known, uses = _run(settings, keys, read)
    values = Counter[str]()
    for use in uses:
        values[use.key_id or ""] += use.values
    table = Table("id", "fingerprint", "first seen", "values", "readable", "last rotation to it")
    by_id = {key.id: key for key in known}
    for key_id in dict.fromkeys((*keys.fingerprints, *by_id, *sorted(values))):
        key = by_id.get(key_id)
        seen = [key.fingerprint, f"{key.first_seen_at:%Y-%m-%d %H:%M}"] if key else ["", ""]
        table.add_row(key_id, *seen, str(values[key_id]), _ability(key_id, keys), _rotation(key))
    show(table)


async def _rotate(db: Database, keys: KeyRing) -> Rotated:
    total = outdated(await store.list_uses(db), keys.writer)
    with _progress() as progress:
        task = progress.add_task(f"to {keys.writer}", total=total)
        done = await rotate(db, keys, lambda values: progress.advance(task, values))
    async with db.transaction() as session:
        told = {"rotated": done.values, "unreadable": len(done.unreadable), "left": done.left}
        audit.record(session, By(), "rotate", Target("encryption_key", keys.writer), after=told)
    return done


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def _run(settings: StoreSettings, keys: KeyRing, work: Callable[[Database], Awaitable[T]]) -> T:
    """With a database whose keys are ours. Notes none: a typo shall not take an id."""
    logs.configure("console", "warning")

    async def run() -> T:
        url = settings.database_url.get_secret_value()
        db = Database(url, pool_size=2, application="chatd cli")
        try:
            if others := await store.find_other_keys(db, keys.fingerprints):
                raise OtherKey(others)
            return await work(db)
        finally:
            await db.close()

    return asyncio.run(run())


def _by_column(uses: list[KeyUse], keys: KeyRing) -> Table:
    table = Table("secret", "key", "values", "readable")
    for use in uses:
        key_id = use.key_id or ""
        table.add_row(str(use.column), key_id, str(use.values), _ability(key_id, keys))
    return table


def _ability(key_id: str, keys: KeyRing) -> str:
    if key_id == keys.writer:
        return "yes, writes"
    return "yes" if key_id in keys.fingerprints else "no"


def _rotation(key: KnownKey | None) -> str:
    if key is None or key.rotation_started_at is None:
        return ""
    if key.rotation_ended_at is None:
        return f"stopped after {key.rotated} values"
    return f"{key.rotation_ended_at:%Y-%m-%d %H:%M}, {key.rotated} values"
