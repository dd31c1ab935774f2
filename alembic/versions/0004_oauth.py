"""OAuth: tokens, clients, flows under way, browser sessions and logins at OpenID providers."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_ATTEMPTS = """
DO $$ BEGIN
    SET LOCAL lock_timeout = '500ms';
    FOR attempt IN 1..100 LOOP
        BEGIN
            {statements}
            RETURN;
        EXCEPTION WHEN lock_not_available THEN
            PERFORM pg_sleep(0.1);
        END;
    END LOOP;
    RAISE lock_not_available USING MESSAGE = 'the tables are in use: migrate again a little later';
END $$
"""
"""As in 0003: it waits for a lock only while it holds none, and never for long."""

_ADD_WAITING = """
            ALTER TABLE turns ADD COLUMN IF NOT EXISTS on_auth_required
                varchar NOT NULL DEFAULT 'skip';
            ALTER TABLE turns DROP CONSTRAINT IF EXISTS ck_turns_on_auth_required;
            ALTER TABLE turns ADD CONSTRAINT ck_turns_on_auth_required
                CHECK (on_auth_required IN ('skip', 'wait')) NOT VALID;
"""

_LOCK = """
            LOCK TABLE users IN SHARE ROW EXCLUSIVE MODE;
            LOCK TABLE mcp_server_configs IN ACCESS EXCLUSIVE MODE NOWAIT;
            LOCK TABLE connection_log IN SHARE ROW EXCLUSIVE MODE NOWAIT;
"""

_LOCK_ALL = """
            LOCK TABLE turns IN ACCESS EXCLUSIVE MODE;
            LOCK TABLE users, mcp_server_configs, policy_state, connection_log
                IN ACCESS EXCLUSIVE MODE NOWAIT;
"""

_APPEND_ONLY = """
CREATE FUNCTION connection_log_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'DELETE' OR coalesce(current_setting('chatd.retention', true), '') <> 'on' THEN
        RAISE EXCEPTION 'connection_log is append-only' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$
"""
"""As with audit_log in 0003, but for good: erasing a person has nothing to take out of a line here,
so nobody may change one."""

_GUARD = """
CREATE TRIGGER connection_log_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON connection_log
FOR EACH STATEMENT EXECUTE FUNCTION connection_log_is_append_only()
"""

_CLOSE_SERVICES = """
UPDATE mcp_server_configs SET enabled = false, auth_type = 'oauth2', version = version + 1
WHERE auth_type = 'client_credentials'
"""
"""The release before does not know them. As `oauth2` they keep their fields, and nobody has a
token."""

_METHODS = """
    oauth2_auth_method IN ('', 'none', 'client_secret_post', 'client_secret_basic', 'private_key_jwt')
"""

_FLAGS = {
    "oauth2_issuer_set": "false",
    "oauth2_resource_set": "false",
    "oauth2_send_resource": "true",
    "oauth2_sends_issuer": "false",
}

_AUTH_TYPES = "auth_type IN ('none', 'oauth2', 'api_key', 'custom_headers', 'user_oidc'{more})"


def upgrade() -> None:
    _add_waiting()
    op.execute(_ATTEMPTS.format(statements=_LOCK))
    op.create_table(
        "sessions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("family_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("token_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("previous_sha256", sa.LargeBinary(), nullable=True),
        sa.Column("csrf_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("id_token", sa.LargeBinary(), nullable=True),
        sa.Column("id_token_key_id", sa.String(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "rotated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("family_sha256"),
        sa.UniqueConstraint("token_sha256"),
    )
    op.create_index(op.f("ix_sessions_expires_at"), "sessions", ["expires_at"], unique=False)
    op.create_index(
        op.f("ix_sessions_previous_sha256"), "sessions", ["previous_sha256"], unique=False
    )
    op.create_index(op.f("ix_sessions_user_id"), "sessions", ["user_id"], unique=False)
    op.create_table(
        "user_links",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("issuer", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("email", sa.String(), server_default="", nullable=False),
        sa.Column(
            "claims",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "last_login_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("issuer", "subject", name="uq_user_links_subject"),
    )
    op.create_index(op.f("ix_user_links_user_id"), "user_links", ["user_id"], unique=False)
    op.create_table(
        "oauth_clients",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("server_id", sa.Uuid(), nullable=False),
        sa.Column("issuer", sa.String(), nullable=False),
        sa.Column("client_id", sa.String(), nullable=False),
        sa.Column("auth_method", sa.String(), nullable=False),
        sa.Column("key_id", sa.String(), server_default="", nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=True),
        sa.Column("secret_key_id", sa.String(), nullable=True),
        sa.Column("token_url", sa.String(), nullable=False),
        sa.Column("revocation_url", sa.String(), server_default="", nullable=False),
        sa.Column(
            "retired_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "auth_method IN ('', 'none', 'client_secret_post', 'client_secret_basic', 'private_key_jwt')",
            name="ck_oauth_clients_auth_method",
        ),
        sa.ForeignKeyConstraint(["server_id"], ["mcp_server_configs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint(
            "server_id", "issuer", "client_id", "token_url", name="uq_oauth_clients_client"
        ),
    )
    op.create_table(
        "oauth_states",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("secret_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("cookie_sha256", sa.LargeBinary(), nullable=True),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("server_id", sa.Uuid(), nullable=True),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("data_key_id", sa.String(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("kind IN ('ticket', 'state', 'login')", name="ck_oauth_states_kind"),
        sa.ForeignKeyConstraint(["server_id"], ["mcp_server_configs.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("secret_sha256"),
    )
    op.create_index(
        op.f("ix_oauth_states_expires_at"), "oauth_states", ["expires_at"], unique=False
    )
    op.create_index(op.f("ix_oauth_states_server_id"), "oauth_states", ["server_id"], unique=False)
    op.create_index(op.f("ix_oauth_states_user_id"), "oauth_states", ["user_id"], unique=False)
    op.create_table(
        "oauth_tokens",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("server_id", sa.Uuid(), nullable=True),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("issuer", sa.String(), nullable=False),
        sa.Column("client_id", sa.String(), nullable=False),
        sa.Column("token_url", sa.String(), nullable=False),
        sa.Column("resource", sa.String(), server_default="", nullable=False),
        sa.Column("scopes", sa.String(), server_default="", nullable=False),
        sa.Column("token_type", sa.String(), server_default="Bearer", nullable=False),
        sa.Column("access_token", sa.LargeBinary(), nullable=False),
        sa.Column("access_token_key_id", sa.String(), nullable=False),
        sa.Column("refresh_token", sa.LargeBinary(), nullable=True),
        sa.Column("refresh_token_key_id", sa.String(), nullable=True),
        sa.Column("lifetime_seconds", sa.Float(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("generation", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("refreshing_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("refresher", sa.Uuid(), nullable=True),
        sa.Column("left_behind", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("attempted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("needs_reauth", sa.String(), nullable=True),
        sa.Column("last_error", sa.String(), server_default="", nullable=False),
        sa.Column("refusals", sa.Integer(), server_default="0", nullable=False),
        sa.Column("retries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("retry_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("wanted_scopes", sa.String(), server_default="", nullable=False),
        sa.Column("step_ups", sa.Integer(), server_default="0", nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "refreshed_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "needs_reauth IN ('invalid_grant', 'expired', 'client_changed', 'insufficient_scope', 'unauthorized', 'tampered', 'refresh_lost', 'refresh_refused')",
            name="ck_oauth_tokens_needs_reauth",
        ),
        sa.CheckConstraint(
            "server_id IS NOT NULL OR user_id IS NOT NULL", name="ck_oauth_tokens_whose"
        ),
        sa.ForeignKeyConstraint(["server_id"], ["mcp_server_configs.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "ix_oauth_tokens_refreshed",
        "oauth_tokens",
        ["refreshed_at"],
        unique=False,
        postgresql_where=sa.text("refresh_token IS NOT NULL AND needs_reauth IS NULL"),
    )
    op.create_index(op.f("ix_oauth_tokens_server_id"), "oauth_tokens", ["server_id"], unique=False)
    op.create_index(
        "uq_oauth_tokens_whose",
        "oauth_tokens",
        ["user_id", "server_id"],
        unique=True,
        postgresql_nulls_not_distinct=True,
    )
    _alter()


def _alter() -> None:
    op.add_column(
        "mcp_server_configs",
        sa.Column("oauth2_issuer", sa.String(), server_default="", nullable=False),
    )
    op.add_column(
        "mcp_server_configs",
        sa.Column("oauth2_resource", sa.String(), server_default="", nullable=False),
    )
    for name, default in _FLAGS.items():
        flag = sa.Column(name, sa.Boolean(), server_default=sa.text(default), nullable=False)
        op.add_column("mcp_server_configs", flag)
    op.add_column(
        "mcp_server_configs",
        sa.Column("oauth2_auth_method", sa.String(), server_default="", nullable=False),
    )
    op.add_column(
        "mcp_server_configs",
        sa.Column("oauth2_client_source", sa.String(), server_default="", nullable=False),
    )
    op.add_column(
        "mcp_server_configs",
        sa.Column("oauth2_registration_url", sa.String(), server_default="", nullable=False),
    )
    op.add_column(
        "mcp_server_configs",
        sa.Column("oauth2_client_key_id", sa.String(), server_default="", nullable=False),
    )
    op.add_column(
        "mcp_server_configs",
        sa.Column("oidc_audience", sa.String(), server_default="", nullable=False),
    )
    op.add_column(
        "mcp_server_configs", sa.Column("discovered_at", sa.DateTime(timezone=True), nullable=True)
    )
    op.add_column(
        "mcp_server_configs",
        sa.Column("oauth2_looked_at", sa.DateTime(timezone=True), nullable=True),
    )
    op.add_column(
        "mcp_server_configs",
        sa.Column("oauth2_renewed_at", sa.DateTime(timezone=True), nullable=True),
    )
    op.create_check_constraint(
        "ck_mcp_server_configs_auth_method",
        "mcp_server_configs",
        _METHODS.strip(),
    )
    op.drop_constraint("ck_mcp_server_configs_auth_type", "mcp_server_configs")
    op.create_check_constraint(
        "ck_mcp_server_configs_auth_type",
        "mcp_server_configs",
        _AUTH_TYPES.format(more=", 'client_credentials'"),
    )
    op.execute(_APPEND_ONLY)
    op.execute(_GUARD)


def _add_waiting() -> None:
    """Every turn there is must be looked at for the constraint, which holds up nobody this way.
    First, since what failed here can be repeated."""
    with op.get_context().autocommit_block():
        op.execute(_ATTEMPTS.format(statements=_ADD_WAITING))
        op.execute("ALTER TABLE turns VALIDATE CONSTRAINT ck_turns_on_auth_required")


def downgrade() -> None:
    op.execute(_ATTEMPTS.format(statements=_LOCK_ALL))
    op.execute(_CLOSE_SERVICES)
    op.execute("UPDATE policy_state SET version = version + 1")
    op.execute("DROP TRIGGER connection_log_is_append_only ON connection_log")
    op.execute("DROP FUNCTION connection_log_is_append_only()")
    op.drop_constraint("ck_mcp_server_configs_auth_type", "mcp_server_configs")
    op.create_check_constraint(
        "ck_mcp_server_configs_auth_type", "mcp_server_configs", _AUTH_TYPES.format(more="")
    )
    op.drop_constraint("ck_turns_on_auth_required", "turns")
    op.drop_constraint("ck_mcp_server_configs_auth_method", "mcp_server_configs")
    op.drop_column("turns", "on_auth_required")
    op.drop_column("mcp_server_configs", "oauth2_renewed_at")
    op.drop_column("mcp_server_configs", "oauth2_looked_at")
    op.drop_column("mcp_server_configs", "discovered_at")
    op.drop_column("mcp_server_configs", "oidc_audience")
    op.drop_column("mcp_server_configs", "oauth2_client_key_id")
    op.drop_column("mcp_server_configs", "oauth2_registration_url")
    op.drop_column("mcp_server_configs", "oauth2_client_source")
    op.drop_column("mcp_server_configs", "oauth2_auth_method")
    for name in reversed(_FLAGS):
        op.drop_column("mcp_server_configs", name)
    op.drop_column("mcp_server_configs", "oauth2_resource")
    op.drop_column("mcp_server_configs", "oauth2_issuer")
    op.drop_index(
        "uq_oauth_tokens_whose", table_name="oauth_tokens", postgresql_nulls_not_distinct=True
    )
    op.drop_index(op.f("ix_oauth_tokens_server_id"), table_name="oauth_tokens")
    op.drop_index(
        "ix_oauth_tokens_refreshed",
        table_name="oauth_tokens",
        postgresql_where=sa.text("refresh_token IS NOT NULL AND needs_reauth IS NULL"),
    )
    op.drop_table("oauth_tokens")
    op.drop_index(op.f("ix_oauth_states_user_id"), table_name="oauth_states")
    op.drop_index(op.f("ix_oauth_states_server_id"), table_name="oauth_states")
    op.drop_index(op.f("ix_oauth_states_expires_at"), table_name="oauth_states")
    op.drop_table("oauth_states")
    op.drop_table("oauth_clients")
    op.drop_index(op.f("ix_user_links_user_id"), table_name="user_links")
    op.drop_table("user_links")
    op.drop_index(op.f("ix_sessions_user_id"), table_name="sessions")
    op.drop_index(op.f("ix_sessions_previous_sha256"), table_name="sessions")
    op.drop_index(op.f("ix_sessions_expires_at"), table_name="sessions")
    op.drop_table("sessions")
