"""Indexes of sub-agents alone: most chats are none, and each change of a chat wrote to both."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_NEW = {"ix_chats_parent": "parent_chat_id", "ix_chats_root": "root_chat_id"}
_OLD = {"ix_chats_parent_chat_id": "parent_chat_id", "ix_chats_root_chat_id": "root_chat_id"}


def upgrade() -> None:
    """Chats go on meanwhile. What failed in the middle can be repeated."""
    with op.get_context().autocommit_block():
        for name, column in _NEW.items():
            _drop(name)
            op.create_index(
                name,
                "chats",
                [column],
                postgresql_where=sa.text(f"{column} IS NOT NULL"),
                postgresql_concurrently=True,
            )
        for name in _OLD:
            _drop(name)


def downgrade() -> None:
    with op.get_context().autocommit_block():
        for name, column in _OLD.items():
            _drop(name)
            op.create_index(name, "chats", [column], postgresql_concurrently=True)
        for name in _NEW:
            _drop(name)


def _drop(name: str) -> None:
    op.drop_index(name, table_name="chats", if_exists=True, postgresql_concurrently=True)
