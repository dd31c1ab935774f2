"""Governance: groups, restricted servers, pinned tools, processes, keys, connections."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_APPEND_ONLY = """
CREATE FUNCTION audit_log_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' OR coalesce(current_setting('chatd.retention', true), '') <> 'on' THEN
        RAISE EXCEPTION 'audit_log is append-only' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$
"""
"""Who removes or redacts lines says so for the transaction: `chatd.store.audit.unseal`."""

_GUARD = """
CREATE TRIGGER audit_log_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
FOR EACH STATEMENT EXECUTE FUNCTION audit_log_is_append_only()
"""

_LOCK = """
DO $$ BEGIN
    SET LOCAL lock_timeout = '500ms';
    FOR attempt IN 1..100 LOOP
        BEGIN
            LOCK TABLE turns IN ACCESS EXCLUSIVE MODE;
            LOCK TABLE users, chat_messages, tool_calls, files, model_providers,
                mcp_server_configs, policy_state, audit_log IN ACCESS EXCLUSIVE MODE NOWAIT;
            RETURN;
        EXCEPTION WHEN lock_not_available THEN
            PERFORM pg_sleep(0.1);
        END;
    END LOOP;
    RAISE lock_not_available USING MESSAGE = 'the tables are in use: migrate again a little later';
END $$
"""
"""All tables that change, at once or not yet. It waits for a lock only while it holds none, so no
command of the release that serves deadlocks with it, and none queues up behind it for long."""


_CLOSE_RESTRICTED = """
UPDATE mcp_server_configs SET enabled = false, version = version + 1 WHERE access = 'groups'
"""
"""The release before knows no groups: to it such a server would be everybody's."""


def upgrade() -> None:
    _index_calls()
    op.execute(_LOCK)
    op.create_table(
        "connection_log",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column(
            "at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("server_id", sa.Uuid(), nullable=False),
        sa.Column("server_slug", sa.String(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("process", sa.String(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("error_code", sa.String(), nullable=False),
        sa.Column("duration_ms", sa.Integer(), nullable=False),
        sa.Column("tool_count", sa.Integer(), nullable=True),
        sa.CheckConstraint(
            "outcome IN ('connected', 'disconnected', 'timeout', 'refused', 'unauthorized', 'failed')",
            name="ck_connection_log_outcome",
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_connection_log_at"), "connection_log", ["at"], unique=False)
    op.create_index("ix_connection_log_server", "connection_log", ["server_id", "at"], unique=False)
    op.create_table(
        "encryption_keys",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column(
            "first_seen_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("rotation_started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("rotation_ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("rotated", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column(
            "progress",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.Column("rotated_by", sa.Uuid(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "groups",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "processes",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "beat_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("left_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("capacity", sa.Integer(), nullable=False),
        sa.Column("running", sa.Integer(), nullable=False),
        sa.Column(
            "key_ids",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            server_default=sa.text("'[]'"),
            nullable=False,
        ),
        sa.CheckConstraint("kind IN ('api', 'worker')", name="ck_processes_kind"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "group_members",
        sa.Column("group_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(["group_id"], ["groups.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("group_id", "user_id"),
    )
    op.create_index(op.f("ix_group_members_user_id"), "group_members", ["user_id"], unique=False)
    op.create_table(
        "mcp_server_groups",
        sa.Column("server_id", sa.Uuid(), nullable=False),
        sa.Column("group_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(["group_id"], ["groups.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["server_id"], ["mcp_server_configs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("server_id", "group_id"),
    )
    op.create_index(
        op.f("ix_mcp_server_groups_group_id"), "mcp_server_groups", ["group_id"], unique=False
    )
    op.create_table(
        "tool_pins",
        sa.Column("server_id", sa.Uuid(), nullable=False),
        sa.Column("tool_name", sa.String(), nullable=False),
        sa.Column(
            "definition",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.Column("definition_hash", sa.String(), nullable=False),
        sa.Column(
            "changed", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.Column("changed_hash", sa.String(), nullable=True),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "seen_hashes", sa.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False
        ),
        sa.Column("pinned_by", sa.Uuid(), nullable=True),
        sa.Column(
            "pinned_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(["server_id"], ["mcp_server_configs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("server_id", "tool_name"),
    )
    op.create_index("ix_audit_log_actor", "audit_log", ["actor_id", "at"], unique=False)
    op.create_index(
        "ix_audit_log_target", "audit_log", ["target_type", "target_id", "at"], unique=False
    )
    op.add_column("audit_log", sa.Column("chat_id", sa.Uuid(), nullable=True))
    op.add_column("audit_log", sa.Column("server_id", sa.Uuid(), nullable=True))
    op.add_column("audit_log", sa.Column("tool", sa.String(), server_default="", nullable=False))
    op.create_index(
        "ix_audit_log_approval",
        "audit_log",
        ["at"],
        unique=False,
        postgresql_where=sa.text("target_type = 'approval'"),
    )
    op.create_index(
        "ix_audit_log_chat",
        "audit_log",
        ["chat_id", "at"],
        unique=False,
        postgresql_where=sa.text("chat_id IS NOT NULL"),
    )
    op.create_index(
        "ix_audit_log_server",
        "audit_log",
        ["server_id", "at"],
        unique=False,
        postgresql_where=sa.text("server_id IS NOT NULL"),
    )
    op.create_index(
        "ix_connection_log_user",
        "connection_log",
        ["user_id", "at"],
        unique=False,
        postgresql_where=sa.text("user_id IS NOT NULL"),
    )
    op.execute(_APPEND_ONLY)
    op.execute(_GUARD)
    op.add_column(
        "mcp_server_configs",
        sa.Column("access", sa.String(), server_default="everyone", nullable=False),
    )
    op.add_column(
        "mcp_server_configs",
        sa.Column("required_auth", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    )
    op.add_column(
        "mcp_server_configs",
        sa.Column("tool_changes", sa.String(), server_default="follow", nullable=False),
    )
    op.add_column(
        "mcp_server_configs", sa.Column("signing_secret", sa.LargeBinary(), nullable=True)
    )
    op.add_column(
        "mcp_server_configs", sa.Column("signing_secret_key_id", sa.String(), nullable=True)
    )
    op.add_column("model_providers", sa.Column("max_concurrent_turns", sa.Integer(), nullable=True))
    op.add_column(
        "policy_state",
        sa.Column("claims_paused", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    )
    op.add_column("tool_calls", sa.Column("arguments_sha256", sa.String(), nullable=True))
    op.create_check_constraint(
        "ck_mcp_server_configs_access", "mcp_server_configs", "access IN ('everyone', 'groups')"
    )
    op.create_check_constraint(
        "ck_mcp_server_configs_tool_changes",
        "mcp_server_configs",
        "tool_changes IN ('follow', 'hold', 'quarantine')",
    )
    # Both repeat the chat's owner, whose own goes with its chats: they only made erasing a user slow.
    op.drop_constraint("turns_owner_id_fkey", "turns")
    op.drop_constraint("chat_messages_created_by_fkey", "chat_messages")
    op.drop_constraint("ck_files_kind", "files")
    op.create_check_constraint("ck_files_kind", "files", "kind IN ('upload', 'result', 'plan')")
    op.add_column("files", sa.Column("approved_turn_id", sa.Uuid(), nullable=True))
    op.create_index(op.f("ix_files_approved_turn_id"), "files", ["approved_turn_id"], unique=False)
    op.create_foreign_key(
        "files_approved_turn_id_fkey",
        "files",
        "turns",
        ["approved_turn_id"],
        ["id"],
        ondelete="SET NULL",
    )


def _index_calls() -> None:
    """Calls go on meanwhile: the journal is long. First, since what failed here can be repeated."""
    name = "ix_tool_calls_intended"
    with op.get_context().autocommit_block():
        op.drop_index(name, table_name="tool_calls", if_exists=True, postgresql_concurrently=True)
        op.create_index(
            name, "tool_calls", ["intended_at"], unique=False, postgresql_concurrently=True
        )


def downgrade() -> None:
    op.execute(_CLOSE_RESTRICTED)
    op.execute("UPDATE policy_state SET version = version + 1")
    op.drop_index(op.f("ix_files_approved_turn_id"), table_name="files")
    op.drop_column("files", "approved_turn_id")
    op.create_foreign_key(
        "turns_owner_id_fkey", "turns", "users", ["owner_id"], ["id"], ondelete="CASCADE"
    )
    op.create_foreign_key(
        "chat_messages_created_by_fkey",
        "chat_messages",
        "users",
        ["created_by"],
        ["id"],
        ondelete="SET NULL",
    )
    op.execute("DELETE FROM files WHERE kind = 'plan'")
    op.drop_constraint("ck_files_kind", "files")
    op.create_check_constraint("ck_files_kind", "files", "kind IN ('upload', 'result')")
    op.drop_constraint("ck_mcp_server_configs_tool_changes", "mcp_server_configs")
    op.drop_constraint("ck_mcp_server_configs_access", "mcp_server_configs")
    op.drop_column("tool_calls", "arguments_sha256")
    op.drop_column("policy_state", "claims_paused")
    op.drop_column("model_providers", "max_concurrent_turns")
    op.drop_column("mcp_server_configs", "signing_secret_key_id")
    op.drop_column("mcp_server_configs", "signing_secret")
    op.drop_column("mcp_server_configs", "tool_changes")
    op.drop_column("mcp_server_configs", "required_auth")
    op.drop_column("mcp_server_configs", "access")
    op.execute("DROP TRIGGER audit_log_is_append_only ON audit_log")
    op.execute("DROP FUNCTION audit_log_is_append_only()")
    op.drop_index("ix_tool_calls_intended", table_name="tool_calls")
    op.drop_index("ix_connection_log_user", table_name="connection_log")
    op.drop_index("ix_audit_log_server", table_name="audit_log")
    op.drop_index("ix_audit_log_chat", table_name="audit_log")
    op.drop_index("ix_audit_log_approval", table_name="audit_log")
    op.drop_column("audit_log", "tool")
    op.drop_column("audit_log", "server_id")
    op.drop_column("audit_log", "chat_id")
    op.drop_index("ix_audit_log_target", table_name="audit_log")
    op.drop_index("ix_audit_log_actor", table_name="audit_log")
    op.drop_table("tool_pins")
    op.drop_index(op.f("ix_mcp_server_groups_group_id"), table_name="mcp_server_groups")
    op.drop_table("mcp_server_groups")
    op.drop_index(op.f("ix_group_members_user_id"), table_name="group_members")
    op.drop_table("group_members")
    op.drop_table("processes")
    op.drop_table("groups")
    op.drop_table("encryption_keys")
    op.drop_index("ix_connection_log_server", table_name="connection_log")
    op.drop_index(op.f("ix_connection_log_at"), table_name="connection_log")
    op.drop_table("connection_log")
