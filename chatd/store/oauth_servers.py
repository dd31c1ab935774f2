"""MCP servers as clients of OAuth: who issues for them, and as whom this deployment asks there."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast
from uuid import UUID

from pydantic import SecretStr
from sqlalchemy import TextClause, text
from sqlmodel import col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from chatd.core.errors import Conflict, NotFound
from chatd.core.oauth import CLIENT_REFUSALS, Client, ClientSource, Issuer
from chatd.store import hot, tables
from chatd.store.db import Database
from chatd.store.oauth_clients import method_of, retire_client
from chatd.store.secrets import KeyRing, Tampered, UnknownKey

_TABLE = "mcp_server_configs"
_SECRET = "oauth2_client_secret"  # noqa: S105  a column

_COLUMNS = """
    s.id, s.display_name, s.url, s.enabled, s.auth_type, s.version, s.oauth2_client_id,
    s.oauth2_client_secret, s.oauth2_client_secret_key_id, s.oauth2_auth_url, s.oauth2_token_url,
    s.oauth2_revocation_url, s.oauth2_scopes, s.oauth2_issuer, s.oauth2_resource,
    s.oauth2_auth_method, s.oauth2_client_source, s.oauth2_registration_url, s.oauth2_sends_issuer,
    s.oauth2_client_key_id, s.oauth2_issuer_set, s.oauth2_send_resource
"""

READ = f"SELECT {_COLUMNS} FROM mcp_server_configs s WHERE s.id = $1"

_REFUSALS = ", ".join(f"'{error}'" for error in sorted(CLIENT_REFUSALS))

READ_FOR = f"""
SELECT {_COLUMNS}, u.username, coalesce(t.wanted_scopes, '') AS wanted_scopes,
    s.enabled AND NOT u.suspended AND {hot.MAY_USE.format(user="u.id")} AS usable,
    EXISTS (SELECT 1 FROM oauth_tokens r WHERE r.server_id = s.id
        AND r.client_id = s.oauth2_client_id
        AND r.last_error IN ({_REFUSALS})) AS client_refused,
    t.id IS NOT NULL AS connects_again
FROM mcp_server_configs s CROSS JOIN users u
    LEFT JOIN oauth_tokens t ON t.server_id = s.id AND t.user_id = u.id
WHERE s.id = $1 AND u.id = $2
"""

USABLE = text(
    f"""SELECT 1 FROM mcp_server_configs s CROSS JOIN users u
    WHERE s.id = :server AND u.id = :user AND s.enabled AND NOT u.suspended
        AND s.auth_type = 'oauth2' AND s.oauth2_issuer = :issuer
        AND s.oauth2_client_id = :client AND s.oauth2_token_url = :token_url AND s.url = :url
        AND {hot.MAY_USE.format(user=":user")}"""
)

FORGET = text("DELETE FROM oauth_tokens WHERE server_id = :server")
FORGET_CLIENTS = text("DELETE FROM oauth_clients WHERE server_id = :server")

FORGET_OWN = text(
    """DELETE FROM oauth_tokens t USING mcp_server_configs s WHERE t.server_id = :server
        AND s.id = t.server_id AND (t.user_id IS NULL OR s.auth_type = 'user_oidc')"""
)

OUTDATE = text(
    f"""UPDATE oauth_tokens o SET needs_reauth = 'client_changed', generation = generation + 1
    WHERE server_id = :server AND {hot.UNDECIDED}"""
)

END_FLOWS = text("DELETE FROM oauth_states WHERE server_id = :server")
"""Used ones too: see `oauth_states.END`."""


@dataclass(frozen=True, slots=True)
class OAuthServer:
    """One configured server, its client secret decrypted. Without a client id it has not been
    discovered yet."""

    id: UUID
    display_name: str
    url: str
    enabled: bool
    auth_type: str
    version: int
    issuer: Issuer
    client: Client
    resource: str
    """As discovered or set; empty: its canonical URL."""
    sends_resource: bool
    issuer_set: bool
    scopes: tuple[str, ...]

    @property
    def ready(self) -> bool:
        return self.auth_type == "oauth2" and bool(self.client.client_id)

    @property
    def expected_issuer(self) -> str:
        """The only one that discovery may find; empty: any."""
        return self.issuer.issuer if self.issuer_set else ""


@dataclass(frozen=True, slots=True)
class Visit:
    """A server as one user may connect to it."""

    server: OAuthServer
    username: str
    usable: bool
    wanted_scopes: tuple[str, ...]
    """What the server has asked for beyond what it was granted."""
    client_refused: bool
    """Its authorization server did not know our client the last time a token was renewed."""
    connects_again: bool
    """The user has been connected: whoever comes again has found that it does not do any more."""


@dataclass(frozen=True, slots=True)
class Configured:
    """What discovery and registration came to."""

    issuer: Issuer
    client: Client
    resource: str
    scopes: Sequence[str]


async def read_server(db: Database, keys: KeyRing, server_id: UUID) -> OAuthServer:
    """Raises `NotFound`, `Tampered`, `UnknownKey`."""
    row = await db.fetch_one(READ, server_id)
    if row is None:
        raise NotFound
    return _server(row, keys)


async def read_visit(db: Database, keys: KeyRing, server_id: UUID, user_id: UUID) -> Visit:
    """Raises `NotFound`, `Tampered`, `UnknownKey`."""
    row = await db.fetch_one(READ_FOR, server_id, user_id)
    if row is None:
        raise NotFound
    wanted = tuple(row["wanted_scopes"].split())
    server = _server(row, keys)
    return Visit(
        server, row["username"], row["usable"], wanted, row["client_refused"], row["connects_again"]
    )


async def still_usable(session: AsyncSession, server: OAuthServer, user_id: UUID) -> bool:
    """Whether the user may still connect to it, and it is still configured as this says."""
    asked = {
        "server": server.id,
        "user": user_id,
        "issuer": server.issuer.issuer,
        "client": server.client.client_id,
        "token_url": server.issuer.token_endpoint,
        "url": server.url,
    }
    connection = await session.connection()
    return (await connection.execute(USABLE, asked)).first() is not None


async def configure(
    session: AsyncSession,
    keys: KeyRing,
    server_id: UUID,
    found: Configured,
    *,
    by: UUID | None,
    version: int,
    enabled: bool | None = None,
) -> None:
    """Set what was found, as a new version. A client that it had is kept for its tokens.

    Raises `Conflict` when it is not of that version any more.
    """
    row = await _locked(session, server_id)
    if row is None or row.version != version:
        raise Conflict("The MCP server config was changed meanwhile.")
    if _names(row) != (found.issuer.issuer, found.client.client_id):
        await _retire(session, keys, server_id)
    issuer, client = found.issuer, found.client
    row.oauth2_issuer = issuer.issuer
    row.oauth2_auth_url = issuer.authorization_endpoint
    row.oauth2_token_url = issuer.token_endpoint
    row.oauth2_revocation_url = issuer.revocation_endpoint
    row.oauth2_registration_url = issuer.registration_endpoint
    row.oauth2_sends_issuer = issuer.sends_issuer
    row.oauth2_client_id = client.client_id
    row.oauth2_auth_method = client.auth_method
    row.oauth2_client_source = client.source
    row.oauth2_client_key_id = client.key_id
    row.oauth2_resource = row.oauth2_resource if row.oauth2_resource_set else found.resource
    row.oauth2_scopes = " ".join(found.scopes)
    _seal(row, keys, client.secret)
    row.discovered_at = cast(Any, func.clock_timestamp())
    row.updated_at = cast(Any, func.clock_timestamp())
    row.updated_by = by
    row.version += 1
    if enabled is not None:
        row.enabled = enabled
    await session.flush()


async def forget_tokens(session: AsyncSession, server_id: UUID) -> None:
    """Of a server that is no longer of the auth type that they were granted for."""
    await _run(session, server_id, FORGET, FORGET_CLIENTS)


async def forget_own_tokens(session: AsyncSession, server_id: UUID) -> None:
    """Those that no user has granted: another one is had by asking."""
    await _run(session, server_id, FORGET_OWN)


async def outdate_tokens(session: AsyncSession, server_id: UUID) -> None:
    """Of a server that is somewhere else now: they were granted for another one, as would be what
    is under way."""
    await _run(session, server_id, OUTDATE, END_FLOWS)


async def _retire(session: AsyncSession, keys: KeyRing, server_id: UUID) -> None:
    """A secret that cannot be read is no reason not to set another one."""
    row = await _locked(session, server_id)
    if row is not None:
        with suppress(Tampered, UnknownKey):
            await retire_client(session, keys, row)


async def remove_unfinished(session: AsyncSession, server_id: UUID, version: int) -> None:
    """A server that was to be discovered and was not, if nobody has changed it since."""
    row = await _locked(session, server_id)
    if row is not None and row.version == version:
        await session.delete(row)
        await session.flush()


async def _run(session: AsyncSession, server_id: UUID, *statements: TextClause) -> None:
    connection = await session.connection()
    for statement in statements:
        await connection.execute(statement, {"server": server_id})


async def _locked(session: AsyncSession, server_id: UUID) -> tables.McpServerConfig | None:
    table = tables.McpServerConfig
    query = select(table).where(col(table.id) == server_id).with_for_update()
    fresh = query.execution_options(populate_existing=True)
    return (await session.exec(fresh)).one_or_none()


def _names(row: tables.McpServerConfig) -> tuple[str, str]:
    return row.oauth2_issuer, row.oauth2_client_id


def _seal(row: tables.McpServerConfig, keys: KeyRing, secret: SecretStr | None) -> None:
    sealed = None, None
    if secret is not None and secret.get_secret_value():
        sealed = keys.encrypt(
            secret.get_secret_value(), table=_TABLE, column=_SECRET, row_id=row.id
        )
    row.oauth2_client_secret, row.oauth2_client_secret_key_id = sealed


def _server(row: Any, keys: KeyRing) -> OAuthServer:
    secret = None
    if row[_SECRET] is not None:
        key_id = row["oauth2_client_secret_key_id"]
        secret = keys.decrypt(row[_SECRET], key_id, table=_TABLE, column=_SECRET, row_id=row["id"])
    return OAuthServer(
        id=row["id"],
        display_name=row["display_name"],
        url=row["url"],
        enabled=row["enabled"],
        auth_type=row["auth_type"],
        version=row["version"],
        issuer=Issuer(
            issuer=row["oauth2_issuer"],
            authorization_endpoint=row["oauth2_auth_url"],
            token_endpoint=row["oauth2_token_url"],
            registration_endpoint=row["oauth2_registration_url"],
            revocation_endpoint=row["oauth2_revocation_url"],
            sends_issuer=row["oauth2_sends_issuer"],
        ),
        client=Client(
            client_id=row["oauth2_client_id"],
            auth_method=method_of(row["oauth2_auth_method"], has_secret=secret is not None),
            secret=secret,
            key_id=row["oauth2_client_key_id"],
            source=cast(ClientSource, row["oauth2_client_source"] or "manual"),
        ),
        resource=row["oauth2_resource"],
        sends_resource=row["oauth2_send_resource"],
        issuer_set=row["oauth2_issuer_set"],
        scopes=tuple(row["oauth2_scopes"].split()),
    )
