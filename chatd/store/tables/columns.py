"""Column kinds that every table file repeats."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import ARRAY, JSON, CheckConstraint, Column, DateTime, Uuid, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from chatd.store.ids import new_id


class Row(SQLModel):
    """Base of every table; declares what SQLModel leaves too narrow for a plain string."""

    __tablename__: ClassVar[Any]


def primary_id() -> Any:
    return Field(default_factory=new_id, primary_key=True)


def timestamp(*, now: bool = False, index: bool = False) -> Any:
    """A timestamptz; `now` gives NOT NULL and the database's clock as default."""
    return Field(
        default=None,
        sa_column=Column(
            DateTime(timezone=True),
            nullable=not now,
            index=index,
            server_default=func.clock_timestamp() if now else None,
        ),
    )


def json(default: str, *, nullable: bool = False) -> Any:
    """A jsonb column whose default is the given JSON text."""
    return Field(
        default=None,
        sa_column=Column(
            JSONB(none_as_null=True),
            nullable=nullable,
            server_default=None if nullable else text(f"'{default}'"),
        ),
    )


def verbatim_json(*, nullable: bool = False) -> Any:
    """A json column: unlike jsonb it gives back the very text that was written.

    What a client saw live and what it reads later are then the same bytes.
    """
    return Field(default=None, sa_column=Column(JSON(none_as_null=True), nullable=nullable))


def ids() -> Any:
    """A uuid[] column, empty by default."""
    return Field(
        default_factory=list,
        sa_column=Column(ARRAY(Uuid()), nullable=False, server_default=text("'{}'")),
    )


def one_of(column: str, values: tuple[str, ...], *, name: str) -> CheckConstraint:
    """A CHECK that repeats a closed set, of plain words or none.

    Not with `IN`: PostgreSQL reads a table's checks anew in each statement that writes to it, and
    one constant is soonest read.
    """
    words = ",".join(value or '""' for value in values)
    return CheckConstraint(f"{column} = ANY ('{{{words}}}'::text[])", name=name)


Instant = datetime | None
