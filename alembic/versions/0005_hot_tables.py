"""What every turn writes to, at less cost.

PostgreSQL reads a table's checks anew in each statement that writes to it, and with `IN` that takes
it longer than the row: with the words in one constant, a third. And most chats are no sub-agents,
while each change of a chat was written to both indexes of those.
"""

from collections.abc import Callable

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_NEW = {"ix_chats_parent": "parent_chat_id", "ix_chats_root": "root_chat_id"}
_OLD = {"ix_chats_parent_chat_id": "parent_chat_id", "ix_chats_root_chat_id": "root_chat_id"}

_STATUSES = (
    "queued,pending,running,interrupting,requires_action,completed,interrupted,failed,cancelled,"
    "superseded"
)
_WORDS = {
    "chats": {
        "plan_mode": "plan",
        "client_type": "ui,api",
        "mode": "explore",
        "title_source": "fallback,generated,user",
    },
    "turns": {
        "status": _STATUSES,
        "kind": "message,compact",
        "plan_mode": "plan",
        "reasoning_effort": "none,minimal,low,medium,high,xhigh,max",
        "on_auth_required": "skip,wait",
    },
    "chat_messages": {"role": "system,user,assistant,tool", "visibility": "user,model,both"},
    "tool_calls": {"state": "intended,sent,waiting,done,failed,unknown,denied,cancelled"},
    "open_items": {
        "kind": "tool_result,approval,elicitation,auth,child",
        "state": "open,answered,expired,cancelled",
    },
    "usage_entries": {"kind": "step,lost,title,compaction"},
}
_LEASED = "({status}) = (lease_id IS NOT NULL)"

_REPLACE = """
DO $$ BEGIN
    SET LOCAL lock_timeout = '50ms';
    FOR attempt IN 1..100 LOOP
        BEGIN
            ALTER TABLE {table} {actions};
            RETURN;
        EXCEPTION WHEN lock_not_available THEN
            PERFORM pg_sleep(1);
        END;
    END LOOP;
    RAISE lock_not_available USING MESSAGE = 'the tables are in use: migrate again a little later';
END $$
"""
"""It waits for a lock a twentieth of the time, since others wait behind it. One table at a time."""


def upgrade() -> None:
    """Turns go on meanwhile. What failed in the middle can be repeated."""
    with op.get_context().autocommit_block():
        _replace_checks(_any)
        for name, column in _NEW.items():
            _drop_index(name)
            op.create_index(
                name,
                "chats",
                [column],
                postgresql_where=sa.text(f"{column} IS NOT NULL"),
                postgresql_concurrently=True,
            )
        for name in _OLD:
            _drop_index(name)


def downgrade() -> None:
    with op.get_context().autocommit_block():
        for name, column in _OLD.items():
            _drop_index(name)
            op.create_index(name, "chats", [column], postgresql_concurrently=True)
        for name in _NEW:
            _drop_index(name)
        _replace_checks(_in)


def _any(column: str, words: str) -> str:
    return f"{column} = ANY ('{{{words}}}'::text[])"


def _in(column: str, words: str) -> str:
    listed = ", ".join(f"'{word}'" for word in words.split(","))
    return f"{column} IN ({listed})"


def _replace_checks(write: Callable[[str, str], str]) -> None:
    for table, columns in _WORDS.items():
        checks = {f"ck_{table}_{column}": write(column, words) for column, words in columns.items()}
        if table == "turns":
            checks["ck_turns_lease"] = _LEASED.format(
                status=write("status", "running,interrupting")
            )
        actions = [
            f"DROP CONSTRAINT IF EXISTS {name}, ADD CONSTRAINT {name} CHECK ({check}) NOT VALID"
            for name, check in checks.items()
        ]
        op.execute(_REPLACE.format(table=table, actions=", ".join(actions)))
        for name in checks:
            op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}")


def _drop_index(name: str) -> None:
    op.drop_index(name, table_name="chats", if_exists=True, postgresql_concurrently=True)
