"""First tables: users, models, chats, turns, messages, the journal, MCP servers, audit log."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit_log",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column(
            "at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("actor_id", sa.Uuid(), nullable=True),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("target_type", sa.String(), nullable=False),
        sa.Column("target_id", sa.String(), nullable=False),
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column(
            "before", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.Column(
            "after", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_audit_log_at"), "audit_log", ["at"], unique=False)
    op.create_table(
        "model_providers",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("provider", sa.String(), nullable=False),
        sa.Column("display_name", sa.String(), nullable=False),
        sa.Column("base_url", sa.String(), nullable=False),
        sa.Column("api_key", sa.LargeBinary(), nullable=True),
        sa.Column("api_key_key_id", sa.String(), nullable=True),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "provider IN ('openai', 'openai-compat')", name="ck_model_providers_provider"
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "uq_model_providers_display_name",
        "model_providers",
        ["display_name"],
        unique=True,
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_table(
        "policy_state",
        sa.Column("id", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("version", sa.BigInteger(), server_default="1", nullable=False),
        sa.CheckConstraint("id", name="ck_policy_state_one_row"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "tool_calls",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("chat_id", sa.Uuid(), nullable=False),
        sa.Column("turn_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("tool_call_id", sa.String(), nullable=False),
        sa.Column("tool_name", sa.String(), nullable=False),
        sa.Column("server_id", sa.Uuid(), nullable=True),
        sa.Column("original_name", sa.String(), nullable=False),
        sa.Column("definition_hash", sa.String(), nullable=False),
        sa.Column("safe", sa.Boolean(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("arguments", sa.String(), nullable=True),
        sa.Column("result", sa.JSON(none_as_null=True), nullable=True),
        sa.Column(
            "intended_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('intended', 'sent', 'waiting', 'done', 'failed', 'unknown', 'denied', 'cancelled')",
            name="ck_tool_calls_state",
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("turn_id", "step", "position", name="uq_tool_calls_place"),
    )
    op.create_index("ix_tool_calls_chat", "tool_calls", ["chat_id"], unique=False)
    op.create_table(
        "users",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("username", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("suspended", sa.Boolean(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint("role IN ('admin', 'member')", name="ck_users_role"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("username"),
    )
    op.create_table(
        "api_tokens",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("token_sha256", sa.LargeBinary(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("token_sha256"),
    )
    op.create_index(op.f("ix_api_tokens_user_id"), "api_tokens", ["user_id"], unique=False)
    op.create_table(
        "mcp_server_configs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("display_name", sa.String(), nullable=False),
        sa.Column("slug", sa.String(), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("icon_url", sa.String(), nullable=False),
        sa.Column("transport", sa.String(), nullable=False),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("auth_type", sa.String(), nullable=False),
        sa.Column("oauth2_client_id", sa.String(), nullable=False),
        sa.Column("oauth2_client_secret", sa.LargeBinary(), nullable=True),
        sa.Column("oauth2_client_secret_key_id", sa.String(), nullable=True),
        sa.Column("oauth2_auth_url", sa.String(), nullable=False),
        sa.Column("oauth2_token_url", sa.String(), nullable=False),
        sa.Column("oauth2_revocation_url", sa.String(), nullable=False),
        sa.Column("oauth2_scopes", sa.String(), nullable=False),
        sa.Column("api_key_header", sa.String(), nullable=False),
        sa.Column("api_key_value", sa.LargeBinary(), nullable=True),
        sa.Column("api_key_value_key_id", sa.String(), nullable=True),
        sa.Column("custom_headers", sa.LargeBinary(), nullable=True),
        sa.Column("custom_headers_key_id", sa.String(), nullable=True),
        sa.Column(
            "tool_allow_list", sa.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False
        ),
        sa.Column(
            "tool_deny_list", sa.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False
        ),
        sa.Column("availability", sa.String(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("model_intent", sa.Boolean(), nullable=False),
        sa.Column("allow_in_plan_mode", sa.Boolean(), nullable=False),
        sa.Column("forward_coder_headers", sa.Boolean(), nullable=False),
        sa.Column("trust_annotations", sa.Boolean(), nullable=False),
        sa.Column("tool_timeout_seconds", sa.Integer(), nullable=False),
        sa.Column("version", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("created_by", sa.Uuid(), nullable=True),
        sa.Column("updated_by", sa.Uuid(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "auth_type IN ('none', 'oauth2', 'api_key', 'custom_headers', 'user_oidc')",
            name="ck_mcp_server_configs_auth_type",
        ),
        sa.CheckConstraint(
            "availability IN ('force_on', 'default_on', 'default_off')",
            name="ck_mcp_server_configs_availability",
        ),
        sa.CheckConstraint("slug <> ''", name="ck_mcp_server_configs_slug"),
        sa.CheckConstraint(
            "transport IN ('streamable_http', 'sse')", name="ck_mcp_server_configs_transport"
        ),
        sa.CheckConstraint("tool_timeout_seconds > 0", name="ck_mcp_server_configs_timeout"),
        sa.ForeignKeyConstraint(["created_by"], ["users.id"], ondelete="SET NULL"),
        sa.ForeignKeyConstraint(["updated_by"], ["users.id"], ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("slug"),
    )
    op.create_table(
        "model_configs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("provider_id", sa.Uuid(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("display_name", sa.String(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("is_default", sa.Boolean(), nullable=False),
        sa.Column("context_limit", sa.Integer(), nullable=False),
        sa.Column("compression_threshold", sa.Integer(), nullable=False),
        sa.Column(
            "options",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.Column("created_by", sa.Uuid(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "compression_threshold BETWEEN 0 AND 100", name="ck_model_configs_threshold"
        ),
        sa.CheckConstraint("context_limit > 0", name="ck_model_configs_context_limit"),
        sa.ForeignKeyConstraint(["created_by"], ["users.id"], ondelete="SET NULL"),
        sa.ForeignKeyConstraint(["provider_id"], ["model_providers.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        op.f("ix_model_configs_provider_id"), "model_configs", ["provider_id"], unique=False
    )
    op.create_index(
        "uq_model_configs_default",
        "model_configs",
        ["is_default"],
        unique=True,
        postgresql_where=sa.text("is_default AND deleted_at IS NULL"),
    )
    op.create_table(
        "chats",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("parent_chat_id", sa.Uuid(), nullable=True),
        sa.Column("root_chat_id", sa.Uuid(), nullable=True),
        sa.Column("title", sa.String(), nullable=False),
        sa.Column("system_prompt", sa.String(), nullable=False),
        sa.Column("plan_mode", sa.String(), nullable=True),
        sa.Column("client_type", sa.String(), nullable=False),
        sa.Column("last_model_config_id", sa.Uuid(), nullable=True),
        sa.Column("last_reasoning_effort", sa.String(), nullable=True),
        sa.Column(
            "mcp_server_ids", sa.ARRAY(sa.Uuid()), server_default=sa.text("'{}'"), nullable=False
        ),
        sa.Column(
            "labels",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.Column("archived", sa.Boolean(), nullable=False),
        sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("pin_order", sa.Integer(), nullable=False),
        sa.Column("last_read_message_id", sa.BigInteger(), nullable=True),
        sa.Column("version", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("history_version", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("client_type IN ('ui', 'api')", name="ck_chats_client_type"),
        sa.CheckConstraint("plan_mode IN ('plan')", name="ck_chats_plan_mode"),
        sa.ForeignKeyConstraint(
            ["last_model_config_id"], ["model_configs.id"], ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["parent_chat_id"], ["chats.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["root_chat_id"], ["chats.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "ix_chats_deleted",
        "chats",
        ["deleted_at"],
        unique=False,
        postgresql_where=sa.text("deleted_at IS NOT NULL"),
    )
    op.create_index(
        "ix_chats_owner_updated",
        "chats",
        ["owner_id", sa.literal_column("updated_at DESC"), sa.literal_column("id DESC")],
        unique=False,
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_index(op.f("ix_chats_parent_chat_id"), "chats", ["parent_chat_id"], unique=False)
    op.create_index(op.f("ix_chats_root_chat_id"), "chats", ["root_chat_id"], unique=False)
    op.create_table(
        "turns",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("chat_id", sa.Uuid(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("position", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("content", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("plan_mode", sa.String(), nullable=True),
        sa.Column("model_config_id", sa.Uuid(), nullable=True),
        sa.Column("reasoning_effort", sa.String(), nullable=True),
        sa.Column(
            "mcp_server_ids", sa.ARRAY(sa.Uuid()), server_default=sa.text("'{}'"), nullable=False
        ),
        sa.Column("user_message_id", sa.BigInteger(), nullable=True),
        sa.Column("idempotency_path", sa.String(), nullable=True),
        sa.Column("idempotency_key", sa.String(), nullable=True),
        sa.Column("request_sha256", sa.LargeBinary(), nullable=True),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("lost", sa.Integer(), server_default="0", nullable=False),
        sa.Column("commits", sa.Integer(), server_default="0", nullable=False),
        sa.Column("lease_id", sa.Uuid(), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("worker_id", sa.String(), nullable=True),
        sa.Column("version", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column(
            "notices",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            server_default=sa.text("'[]'"),
            nullable=False,
        ),
        sa.Column("error", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("traceparent", sa.String(), nullable=True),
        sa.Column(
            "queued_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("pending_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("first_token_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(status IN ('running', 'interrupting')) = (lease_id IS NOT NULL)",
            name="ck_turns_lease",
        ),
        sa.CheckConstraint("plan_mode IN ('plan')", name="ck_turns_plan_mode"),
        sa.CheckConstraint(
            "reasoning_effort IN ('none', 'minimal', 'low', 'medium', 'high', 'xhigh', 'max')",
            name="ck_turns_reasoning_effort",
        ),
        sa.CheckConstraint(
            "status IN ('queued', 'pending', 'running', 'interrupting', 'requires_action', 'completed', 'interrupted', 'failed', 'cancelled', 'superseded')",
            name="ck_turns_status",
        ),
        sa.ForeignKeyConstraint(["chat_id"], ["chats.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["model_config_id"], ["model_configs.id"], ondelete="SET NULL"),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "ix_turns_leased",
        "turns",
        ["owner_id"],
        unique=False,
        postgresql_where=sa.text("status IN ('running', 'interrupting')"),
    )
    op.create_index(
        "ix_turns_queued",
        "turns",
        ["chat_id", "position"],
        unique=False,
        postgresql_where=sa.text("status = 'queued'"),
    )
    op.create_index(
        "ix_turns_pending",
        "turns",
        ["pending_at"],
        unique=False,
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_index("ix_turns_queue", "turns", ["chat_id", "position"], unique=False)
    op.create_index(
        "uq_turns_active",
        "turns",
        ["chat_id"],
        unique=True,
        postgresql_where=sa.text(
            "status IN ('interrupting', 'pending', 'requires_action', 'running')"
        ),
    )
    op.create_index(
        "uq_turns_idempotency",
        "turns",
        ["owner_id", "idempotency_path", "idempotency_key"],
        unique=True,
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.create_table(
        "chat_messages",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("chat_id", sa.Uuid(), nullable=False),
        sa.Column("turn_id", sa.Uuid(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("created_by", sa.Uuid(), nullable=True),
        sa.Column("model_config_id", sa.Uuid(), nullable=True),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("content", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("content_version", sa.SmallInteger(), server_default="1", nullable=False),
        sa.Column("visibility", sa.String(), server_default="both", nullable=False),
        sa.Column("compressed", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("deleted", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("usage", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("context_limit", sa.Integer(), server_default="0", nullable=False),
        sa.Column("total_cost_micros", sa.BigInteger(), nullable=True),
        sa.Column("runtime_ms", sa.Integer(), server_default="0", nullable=False),
        sa.Column("provider_response_id", sa.String(), server_default="", nullable=False),
        sa.Column("version", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "role IN ('system', 'user', 'assistant', 'tool')", name="ck_chat_messages_role"
        ),
        sa.CheckConstraint(
            "visibility IN ('user', 'model', 'both')", name="ck_chat_messages_visibility"
        ),
        sa.ForeignKeyConstraint(["chat_id"], ["chats.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["created_by"], ["users.id"], ondelete="SET NULL"),
        sa.ForeignKeyConstraint(["turn_id"], ["turns.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("turn_id", "step", "position", name="uq_chat_messages_place"),
    )
    op.create_index("ix_chat_messages_chat", "chat_messages", ["chat_id", "id"], unique=False)
    op.execute("INSERT INTO policy_state (id, version) VALUES (true, 1)")


def downgrade() -> None:
    op.drop_index("ix_chat_messages_chat", table_name="chat_messages")
    op.drop_table("chat_messages")
    op.drop_index(
        "uq_turns_idempotency",
        table_name="turns",
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.drop_index(
        "uq_turns_active",
        table_name="turns",
        postgresql_where=sa.text(
            "status IN ('interrupting', 'pending', 'requires_action', 'running')"
        ),
    )
    op.drop_index("ix_turns_queue", table_name="turns")
    op.drop_index(
        "ix_turns_queued", table_name="turns", postgresql_where=sa.text("status = 'queued'")
    )
    op.drop_index(
        "ix_turns_pending", table_name="turns", postgresql_where=sa.text("status = 'pending'")
    )
    op.drop_index(
        "ix_turns_leased",
        table_name="turns",
        postgresql_where=sa.text("status IN ('running', 'interrupting')"),
    )
    op.drop_table("turns")
    op.drop_index(op.f("ix_chats_root_chat_id"), table_name="chats")
    op.drop_index(op.f("ix_chats_parent_chat_id"), table_name="chats")
    op.drop_index(
        "ix_chats_owner_updated", table_name="chats", postgresql_where=sa.text("deleted_at IS NULL")
    )
    op.drop_index(
        "ix_chats_deleted", table_name="chats", postgresql_where=sa.text("deleted_at IS NOT NULL")
    )
    op.drop_table("chats")
    op.drop_index(
        "uq_model_configs_default",
        table_name="model_configs",
        postgresql_where=sa.text("is_default AND deleted_at IS NULL"),
    )
    op.drop_index(op.f("ix_model_configs_provider_id"), table_name="model_configs")
    op.drop_table("model_configs")
    op.drop_table("mcp_server_configs")
    op.drop_index(op.f("ix_api_tokens_user_id"), table_name="api_tokens")
    op.drop_table("api_tokens")
    op.drop_table("users")
    op.drop_index("ix_tool_calls_chat", table_name="tool_calls")
    op.drop_table("tool_calls")
    op.drop_table("policy_state")
    op.drop_index(
        "uq_model_providers_display_name",
        table_name="model_providers",
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.drop_table("model_providers")
    op.drop_index(op.f("ix_audit_log_at"), table_name="audit_log")
    op.drop_table("audit_log")
