"""Encrypting everything with the newest key while the deployment runs; stopped, it goes on."""

from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

from chatd.core.errors import ChatdError, Conflict
from chatd.store import keys as store
from chatd.store.db import Database
from chatd.store.keys import SECRET_COLUMNS, KeyUse, OtherKey, Sealed, SecretColumn
from chatd.store.processes import lacking
from chatd.store.secrets import KeyRing, Tampered, UnknownKey

BUSY = "Another rotation is under way."


@dataclass(slots=True)
class Rotated:
    """What a rotation did."""

    values: int = 0
    changed: int = 0
    """Changed by somebody else meanwhile: left alone."""
    left: int = 0
    """Readable, and not encrypted with the newest key at the end: run it again."""
    unreadable: dict[tuple[str, UUID], str] = field(default_factory=dict[tuple[str, UUID], str])
    """By column and row, why."""


class KeyMissing(ChatdError):
    """A process lacks the key that everything is to be encrypted with."""

    code = "key_missing"
    status = 409


def outdated(uses: list[KeyUse], key_id: str) -> int:
    """How many values another key encrypted."""
    return sum(use.values for use in uses if use.key_id != key_id)


async def rotate(db: Database, keys: KeyRing, told: Callable[[int], None]) -> Rotated:
    """Encrypt with the ring's first key what is not. `told` hears of each batch's values.

    `db` has two connections or more. Raises `Conflict` while another rotation runs, `OtherKey`
    when others have another key under one of our ids, `KeyMissing` while a process lacks the key.
    """
    async with store.alone(db) as alone:
        if not alone:
            raise Conflict(BUSY, detail="It does the same; wait for its end.")
        run = _Rotation(db, keys, told)
        await run.check()
        stopped_at = await store.begin_rotation(db, keys.writer)
        for column in SECRET_COLUMNS:
            # From where it was stopped, then once more from the beginning: what was written
            # behind its back.
            for after in dict.fromkeys((stopped_at.get(str(column)), None)):
                await run.column(column, after)
        await store.end_rotation(db, keys.writer)
        left = outdated(await store.list_uses(db), keys.writer) - len(run.done.unreadable)
        run.done.left = max(left, 0)
    return run.done


class _Rotation:
    def __init__(self, db: Database, keys: KeyRing, told: Callable[[int], None]) -> None:
        self._db = db
        self._keys = keys
        self._told = told
        self.done = Rotated()

    async def check(self) -> None:
        """Raises `OtherKey`, `KeyMissing`."""
        others = await store.register_keys(self._db, self._keys.fingerprints)
        if others:
            raise OtherKey(others)
        key_id = self._keys.writer
        names = await lacking(self._db, key_id)
        if names:
            raise KeyMissing(
                f"These processes lack the key {key_id}: {', '.join(names)}.",
                detail="Give every process the new key for reading first, then rotate.",
            )

    async def column(self, column: SecretColumn, after: UUID | None) -> None:
        """Every value from this row on."""
        key_id = self._keys.writer
        while batch := await store.read_others(self._db, column, key_id, after):
            await self.check()
            after = batch[-1].row_id
            before = self.done.values
            new = [sealed for sealed in batch if self._is_new(column, sealed)]
            for sealed in batch:
                await self._value(column, sealed)
            rotated = self.done.values - before
            await store.advance_rotation(self._db, key_id, column, after, rotated)
            self._told(len(new))

    def _is_new(self, column: SecretColumn, sealed: Sealed) -> bool:
        return (str(column), sealed.row_id) not in self.done.unreadable

    async def _value(self, column: SecretColumn, sealed: Sealed) -> None:
        place = {"table": column.table, "column": column.column}
        row_id = sealed.row_id
        try:
            plain = self._keys.decrypt(sealed.ciphertext, sealed.key_id, row_id=row_id, **place)
        except (UnknownKey, Tampered) as error:
            self.done.unreadable[str(column), row_id] = error.message
            return
        secret = plain.get_secret_value()
        ciphertext, key_id = self._keys.encrypt(secret, row_id=row_id, **place)
        if await store.replace_sealed(self._db, column, sealed, ciphertext, key_id):
            self.done.values += 1
        else:
            self.done.changed += 1
