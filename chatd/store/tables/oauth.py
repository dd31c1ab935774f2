"""What users have granted: tokens, the clients they are bound to, logins, and flows under way."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    LargeBinary,
    UniqueConstraint,
    text,
)
from sqlmodel import Field

from chatd.core.oauth import AUTH_METHODS, REAUTH_REASONS
from chatd.store.tables.columns import Instant, Row, json, one_of, primary_id, timestamp

STATE_KINDS = ("ticket", "state", "login")


def _bytes(*, nullable: bool = False, unique: bool = False) -> Any:
    return Field(
        default=None, sa_column=Column(LargeBinary, nullable=nullable, unique=unique or None)
    )


def _word() -> Any:
    return Field(default="", sa_column_kwargs={"server_default": ""})


def _server(*, nullable: bool, index: bool = True) -> Any:
    return Field(
        default=None,
        foreign_key="mcp_server_configs.id",
        ondelete="CASCADE",
        nullable=nullable,
        index=index,
    )


def _user(*, nullable: bool, index: bool = True) -> Any:
    return Field(
        default=None, foreign_key="users.id", ondelete="CASCADE", nullable=nullable, index=index
    )


def _deadline() -> Any:
    return Field(sa_column=Column(DateTime(timezone=True), nullable=False, index=True))


class OAuthToken(Row, table=True):
    """What one token endpoint handed out. Server and user: a user's connection, or what their
    login's token was exchanged for. Server alone: the deployment's own. User alone: their login's.

    `generation` grows with every refresh; a new grant has another id. `refresher` holds the lease
    until `refreshing_until`.
    """

    __tablename__ = "oauth_tokens"
    __table_args__ = (
        one_of("needs_reauth", REAUTH_REASONS, name="ck_oauth_tokens_needs_reauth"),
        CheckConstraint(
            "server_id IS NOT NULL OR user_id IS NOT NULL", name="ck_oauth_tokens_whose"
        ),
        Index(
            "uq_oauth_tokens_whose",
            "user_id",
            "server_id",
            unique=True,
            postgresql_nulls_not_distinct=True,
        ),
        Index(
            "ix_oauth_tokens_refreshed",
            "refreshed_at",
            postgresql_where=text("refresh_token IS NOT NULL AND needs_reauth IS NULL"),
        ),
    )

    id: UUID = primary_id()
    server_id: UUID | None = _server(nullable=True)
    user_id: UUID | None = _user(nullable=True, index=False)
    issuer: str
    client_id: str
    token_url: str
    resource: str = _word()
    scopes: str = _word()
    token_type: str = Field(default="Bearer", sa_column_kwargs={"server_default": "Bearer"})
    access_token: bytes = _bytes()
    access_token_key_id: str
    refresh_token: bytes | None = _bytes(nullable=True)
    refresh_token_key_id: str | None = None
    lifetime_seconds: float | None = None
    expires_at: Instant = timestamp()
    generation: int = Field(
        default=1, sa_column=Column(BigInteger, nullable=False, server_default="1")
    )
    refreshing_until: Instant = timestamp()
    refresher: UUID | None = None
    left_behind: bool = Field(default=False, sa_column_kwargs={"server_default": text("false")})
    """A refresher has been lost since the last refresh: the refresh token may be a spent one."""
    attempted_at: Instant = timestamp()
    needs_reauth: str | None = None
    last_error: str = _word()
    refusals: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    """Refreshes in a row that were refused without a word on whether that is for good."""
    retries: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    """How often in a row it was marked for a reason that need not be final."""
    retry_at: Instant = timestamp()
    """Refusals before do not count again; marked for such a reason it is tried again from then."""
    wanted_scopes: str = _word()
    """What to ask for the next time, once a server has wanted more."""
    step_ups: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    created_at: Instant = timestamp(now=True)
    refreshed_at: Instant = timestamp(now=True)
    used_at: Instant = timestamp()


class OAuthClient(Row, table=True):
    """A client that a server's configuration no longer names, kept for the tokens bound to it."""

    __tablename__ = "oauth_clients"
    __table_args__ = (
        one_of("auth_method", ("", *AUTH_METHODS), name="ck_oauth_clients_auth_method"),
        UniqueConstraint(
            "server_id", "issuer", "client_id", "token_url", name="uq_oauth_clients_client"
        ),
    )

    id: UUID = primary_id()
    server_id: UUID = _server(nullable=False, index=False)
    issuer: str
    client_id: str
    auth_method: str
    key_id: str = _word()
    secret: bytes | None = _bytes(nullable=True)
    secret_key_id: str | None = None
    token_url: str
    revocation_url: str = _word()
    retired_at: Instant = timestamp(now=True)


class OAuthState(Row, table=True):
    """A flow under way, found by the hash of a secret that works once. `data` is ciphertext."""

    __tablename__ = "oauth_states"
    __table_args__ = (one_of("kind", STATE_KINDS, name="ck_oauth_states_kind"),)

    id: UUID = primary_id()
    kind: str
    secret_sha256: bytes = _bytes(unique=True)
    cookie_sha256: bytes | None = _bytes(nullable=True)
    """Of the browser that it belongs to; none yet: of whoever comes first."""
    user_id: UUID | None = _user(nullable=True)
    server_id: UUID | None = _server(nullable=True)
    data: bytes = _bytes()
    data_key_id: str
    created_at: Instant = timestamp(now=True)
    expires_at: datetime = _deadline()
    used_at: Instant = timestamp()


class Session(Row, table=True):
    """A browser that is signed in. The token changes now and then; the one before it works until
    the new one has been seen, and a little longer for requests that were on their way."""

    __tablename__ = "sessions"

    id: UUID = primary_id()
    user_id: UUID = _user(nullable=False)
    family_sha256: bytes = _bytes(unique=True)
    """Of what all its tokens begin with."""
    token_sha256: bytes = _bytes(unique=True)
    previous_sha256: bytes | None = Field(
        default=None, sa_column=Column(LargeBinary, nullable=True, index=True)
    )
    csrf_sha256: bytes = _bytes()
    id_token: bytes | None = _bytes(nullable=True)
    """Ciphertext: what signing out at the provider is asked with."""
    id_token_key_id: str | None = None
    created_at: Instant = timestamp(now=True)
    rotated_at: Instant = timestamp(now=True)
    seen_at: Instant = timestamp()
    """When the newest token first came back."""
    last_used_at: Instant = timestamp()
    expires_at: datetime = _deadline()
    revoked_at: Instant = timestamp()


class UserLink(Row, table=True):
    """Who a user is at an OpenID provider. The login's token is in `oauth_tokens`."""

    __tablename__ = "user_links"
    __table_args__ = (UniqueConstraint("issuer", "subject", name="uq_user_links_subject"),)

    id: UUID = primary_id()
    user_id: UUID = _user(nullable=False)
    issuer: str
    subject: str
    email: str = _word()
    claims: dict[str, Any] = json("{}")
    created_at: Instant = timestamp(now=True)
    last_login_at: Instant = timestamp(now=True)
