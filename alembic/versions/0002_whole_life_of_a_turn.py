"""The whole life of a turn: open items, files, settings, usage, titles, compaction."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "usage_entries",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column(
            "at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("chat_id", sa.Uuid(), nullable=False),
        sa.Column("turn_id", sa.Uuid(), nullable=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("model_config_id", sa.Uuid(), nullable=True),
        sa.Column("input_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("total_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("reasoning_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("cache_creation_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("cache_read_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("cost_micros", sa.BigInteger(), nullable=True),
        sa.Column("estimated", sa.Boolean(), server_default="false", nullable=False),
        sa.CheckConstraint(
            "kind IN ('step', 'lost', 'title', 'compaction')", name="ck_usage_entries_kind"
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_usage_entries_chat", "usage_entries", ["chat_id"], unique=False)
    op.create_index("ix_usage_entries_owner", "usage_entries", ["owner_id", "at"], unique=False)
    op.create_table(
        "deployment_settings",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column(
            "value",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            server_default=sa.text("'null'"),
            nullable=False,
        ),
        sa.Column("updated_by", sa.Uuid(), nullable=True),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(["updated_by"], ["users.id"], ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_table(
        "files",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("media_type", sa.String(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint("kind IN ('upload', 'result')", name="ck_files_kind"),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_files_created_at"), "files", ["created_at"], unique=False)
    op.create_index(op.f("ix_files_owner_id"), "files", ["owner_id"], unique=False)
    op.create_table(
        "user_settings",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column(
            "value",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            server_default=sa.text("'null'"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("user_id", "key"),
    )
    op.create_table(
        "chat_files",
        sa.Column("chat_id", sa.Uuid(), nullable=False),
        sa.Column("file_id", sa.Uuid(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(["chat_id"], ["chats.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["file_id"], ["files.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("chat_id", "file_id"),
    )
    op.create_index(op.f("ix_chat_files_file_id"), "chat_files", ["file_id"], unique=False)
    op.create_table(
        "open_items",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("chat_id", sa.Uuid(), nullable=False),
        sa.Column("turn_id", sa.Uuid(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("tool_call_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("state", sa.String(), server_default="open", nullable=False),
        sa.Column(
            "data",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.Column(
            "memory", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.Column(
            "answer", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.Column("answered_by", sa.Uuid(), nullable=True),
        sa.Column("child_chat_id", sa.Uuid(), nullable=True),
        sa.Column("deadline", sa.DateTime(timezone=True), nullable=True),
        sa.Column("version", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "kind IN ('tool_result', 'approval', 'elicitation', 'auth', 'child')",
            name="ck_open_items_kind",
        ),
        sa.CheckConstraint(
            "state IN ('open', 'answered', 'expired', 'cancelled')", name="ck_open_items_state"
        ),
        sa.ForeignKeyConstraint(["chat_id"], ["chats.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["turn_id"], ["turns.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "ix_open_items_chat_open",
        "open_items",
        ["chat_id"],
        unique=False,
        postgresql_where=sa.text("state = 'open'"),
    )
    op.create_index(
        "ix_open_items_child",
        "open_items",
        ["child_chat_id"],
        unique=False,
        postgresql_where=sa.text("state = 'open' AND child_chat_id IS NOT NULL"),
    )
    op.create_index(
        "ix_open_items_deadline",
        "open_items",
        ["deadline"],
        unique=False,
        postgresql_where=sa.text("state = 'open'"),
    )
    op.create_index(
        "ix_open_items_turn", "open_items", ["turn_id", "step", "position"], unique=False
    )
    op.add_column(
        "chats", sa.Column("title_source", sa.String(), server_default="fallback", nullable=False)
    )
    op.add_column("chats", sa.Column("retitling_until", sa.DateTime(timezone=True), nullable=True))
    op.add_column("chats", sa.Column("mode", sa.String(), nullable=True))
    op.add_column(
        "chats",
        sa.Column(
            "dynamic_tools",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            server_default=sa.text("'[]'"),
            nullable=False,
        ),
    )
    op.add_column(
        "chats",
        sa.Column("context_from_message_id", sa.BigInteger(), server_default="0", nullable=False),
    )
    op.add_column(
        "mcp_server_configs",
        sa.Column("require_approval", sa.String(), server_default="never", nullable=False),
    )
    op.add_column(
        "mcp_server_configs",
        sa.Column(
            "tool_settings",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
    )
    op.add_column("turns", sa.Column("kind", sa.String(), server_default="message", nullable=False))
    op.add_column("turns", sa.Column("parked_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column(
        "turns", sa.Column("parked_seconds", sa.Float(), server_default="0", nullable=False)
    )
    op.add_column("users", sa.Column("spend_limit_micros", sa.BigInteger(), nullable=True))
    op.create_check_constraint("ck_chats_mode", "chats", "mode IN ('explore')")
    op.create_check_constraint(
        "ck_chats_title_source", "chats", "title_source IN ('fallback', 'generated', 'user')"
    )
    op.create_check_constraint("ck_turns_kind", "turns", "kind IN ('message', 'compact')")
    op.create_check_constraint(
        "ck_mcp_server_configs_require_approval",
        "mcp_server_configs",
        "require_approval IN ('always', 'never', 'unless_read_only')",
    )
    # What was answered before counts too: for its users' totals and limits.
    op.execute("""
        INSERT INTO usage_entries (at, owner_id, chat_id, turn_id, kind, model_config_id, input_tokens, output_tokens,
            total_tokens, reasoning_tokens, cache_creation_tokens, cache_read_tokens, cost_micros)
        SELECT m.created_at, t.owner_id, m.chat_id, m.turn_id, 'step', m.model_config_id,
            (m.usage->>'input_tokens')::bigint, (m.usage->>'output_tokens')::bigint, (m.usage->>'total_tokens')::bigint,
            (m.usage->>'reasoning_tokens')::bigint, (m.usage->>'cache_creation_tokens')::bigint,
            (m.usage->>'cache_read_tokens')::bigint, m.total_cost_micros
        FROM chat_messages m JOIN turns t ON t.id = m.turn_id WHERE m.usage IS NOT NULL
    """)


def downgrade() -> None:
    op.drop_constraint("ck_mcp_server_configs_require_approval", "mcp_server_configs")
    op.drop_constraint("ck_turns_kind", "turns")
    op.drop_constraint("ck_chats_title_source", "chats")
    op.drop_constraint("ck_chats_mode", "chats")
    op.drop_column("users", "spend_limit_micros")
    op.drop_column("turns", "parked_seconds")
    op.drop_column("turns", "parked_at")
    op.drop_column("turns", "kind")
    op.drop_column("mcp_server_configs", "tool_settings")
    op.drop_column("mcp_server_configs", "require_approval")
    op.drop_column("chats", "context_from_message_id")
    op.drop_column("chats", "dynamic_tools")
    op.drop_column("chats", "mode")
    op.drop_column("chats", "retitling_until")
    op.drop_column("chats", "title_source")
    op.drop_index("ix_open_items_turn", table_name="open_items")
    op.drop_index(
        "ix_open_items_deadline",
        table_name="open_items",
        postgresql_where=sa.text("state = 'open'"),
    )
    op.drop_index(
        "ix_open_items_child",
        table_name="open_items",
        postgresql_where=sa.text("state = 'open' AND child_chat_id IS NOT NULL"),
    )
    op.drop_index(
        "ix_open_items_chat_open",
        table_name="open_items",
        postgresql_where=sa.text("state = 'open'"),
    )
    op.drop_table("open_items")
    op.drop_index(op.f("ix_chat_files_file_id"), table_name="chat_files")
    op.drop_table("chat_files")
    op.drop_table("user_settings")
    op.drop_index(op.f("ix_files_owner_id"), table_name="files")
    op.drop_index(op.f("ix_files_created_at"), table_name="files")
    op.drop_table("files")
    op.drop_table("deployment_settings")
    op.drop_index("ix_usage_entries_owner", table_name="usage_entries")
    op.drop_index("ix_usage_entries_chat", table_name="usage_entries")
    op.drop_table("usage_entries")
