"""The client of a token: the one its server is configured with, or one that was retired since."""

from typing import Any, NamedTuple, cast
from uuid import UUID

from pydantic import SecretStr
from sqlmodel import col, delete, select
from sqlmodel.ext.asyncio.session import AsyncSession

from chatd.core.oauth import AuthMethod, Client, ClientSource
from chatd.store import tables
from chatd.store.db import Database
from chatd.store.ids import new_id
from chatd.store.secrets import KeyRing

_SERVERS = "mcp_server_configs"
_CLIENTS = "oauth_clients"
_SERVERS_COLUMN = "oauth2_client_secret"
_CLIENTS_COLUMN = "secret"
BATCH = 200

FIND = """
SELECT s.id, true AS current, s.oauth2_client_id AS client_id, s.oauth2_auth_method AS auth_method,
    s.oauth2_client_secret AS secret, s.oauth2_client_secret_key_id AS secret_key_id,
    s.oauth2_client_key_id AS key_id, s.oauth2_token_url AS token_url,
    s.oauth2_revocation_url AS revocation_url, s.oauth2_client_source AS source
FROM mcp_server_configs s
WHERE s.id = $1 AND s.oauth2_issuer = $2 AND s.oauth2_client_id = $3
    AND ($2 <> '' OR s.oauth2_token_url = $4)
UNION ALL
SELECT c.id, false, c.client_id, c.auth_method, c.secret, c.secret_key_id, c.key_id, c.token_url,
    c.revocation_url, ''
FROM oauth_clients c WHERE c.server_id = $1 AND c.issuer = $2 AND c.client_id = $3
    AND ($2 <> '' OR c.token_url = $4)
ORDER BY current DESC LIMIT 1
"""
"""An issuer without a name is known by its token endpoint only."""

FORGET = f"""
DELETE FROM oauth_clients WHERE id IN (
    SELECT c.id FROM oauth_clients c WHERE c.retired_at < clock_timestamp() - interval '1 day'
        AND NOT EXISTS (SELECT 1 FROM oauth_tokens t WHERE t.server_id = c.server_id
            AND t.issuer = c.issuer AND t.client_id = c.client_id
            AND (t.issuer <> '' OR t.token_url = c.token_url))
    ORDER BY c.retired_at LIMIT {BATCH} FOR UPDATE SKIP LOCKED)
RETURNING id
"""


class KnownClient(NamedTuple):
    """As whom a token's issuer knows us, and where that is said."""

    client: Client
    token_url: str
    revocation_url: str


def method_of(auth_method: str, *, has_secret: bool) -> AuthMethod:
    """One configured by hand need not say it: then as RFC 6749 asks every server to allow."""
    if auth_method:
        return cast(AuthMethod, auth_method)
    return "client_secret_basic" if has_secret else "none"


async def client_of(
    db: Database, keys: KeyRing, server_id: UUID, issuer: str, client_id: str, token_url: str
) -> KnownClient | None:
    """None: nobody knows it any more. Raises `Tampered` or `UnknownKey`."""
    row = await db.fetch_one(FIND, server_id, issuer, client_id, token_url)
    if row is None:
        return None
    secret = _opened(row, keys)
    client = Client(
        client_id=row["client_id"],
        auth_method=method_of(row["auth_method"], has_secret=secret is not None),
        secret=secret,
        key_id=row["key_id"],
        source=cast(ClientSource, row["source"] or "manual"),
    )
    return KnownClient(client, row["token_url"], row["revocation_url"])


async def retire_client(
    session: AsyncSession, keys: KeyRing, server: tables.McpServerConfig
) -> None:
    """Before the row, which is locked, gets another client: tokens are still bound to this one.

    Raises `Tampered` or `UnknownKey`.
    """
    if not server.oauth2_client_id:
        return
    table = tables.OAuthClient
    same = [
        col(table.server_id) == server.id,
        col(table.issuer) == server.oauth2_issuer,
        col(table.client_id) == server.oauth2_client_id,
    ]
    if not server.oauth2_issuer:
        same.append(col(table.token_url) == server.oauth2_token_url)
    await session.exec(delete(table).where(*same))
    retired_id = new_id()
    ciphertext, key_id = _moved(server, keys, retired_id)
    retired = table(
        id=retired_id,
        server_id=server.id,
        issuer=server.oauth2_issuer,
        client_id=server.oauth2_client_id,
        auth_method=server.oauth2_auth_method,
        key_id=server.oauth2_client_key_id,
        secret=ciphertext,
        secret_key_id=key_id,
        token_url=server.oauth2_token_url,
        revocation_url=server.oauth2_revocation_url,
    )
    session.add(retired)
    await session.flush()


async def retired_ids(session: AsyncSession, server_id: UUID) -> list[str]:
    """The client ids of a server that are kept, the latest last."""
    table = tables.OAuthClient
    query = select(table.client_id).where(table.server_id == server_id)
    return list(await session.exec(query.order_by(col(table.retired_at))))


async def forget_clients(db: Database) -> int:
    """Remove a batch of those that no token is bound to."""
    return len(await db.fetch(FORGET))


def _moved(
    server: tables.McpServerConfig, keys: KeyRing, row_id: UUID
) -> tuple[bytes | None, str | None]:
    """The secret for its new place: a ciphertext that is only copied does not open there."""
    if server.oauth2_client_secret is None:
        return None, None
    plain = keys.decrypt(
        server.oauth2_client_secret,
        server.oauth2_client_secret_key_id,
        table=_SERVERS,
        column=_SERVERS_COLUMN,
        row_id=server.id,
    )
    secret = plain.get_secret_value()
    return keys.encrypt(secret, table=_CLIENTS, column=_CLIENTS_COLUMN, row_id=row_id)


def _opened(row: Any, keys: KeyRing) -> SecretStr | None:
    if row["secret"] is None:
        return None
    table, column = (_SERVERS, _SERVERS_COLUMN) if row["current"] else (_CLIENTS, _CLIENTS_COLUMN)
    return keys.decrypt(
        row["secret"], row["secret_key_id"], table=table, column=column, row_id=row["id"]
    )
