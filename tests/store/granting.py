"""Tokens that tests begin with, granted through the store's own functions."""

from typing import Any
from uuid import UUID

from pydantic import SecretStr

from chatd.core.oauth import Grant, StoredToken
from chatd.store.db import Database
from chatd.store.oauth_tokens import read_token, save_grant
from tests.seed import KEYS

ISSUER = "https://issuer.example"


def grant_of(name: str = "first", **fields: Any) -> Grant:
    """With a refresh token and an hour to live, unless the fields say otherwise."""
    usual: dict[str, Any] = {
        "expires_in_s": 3600.0,
        "refresh_token": SecretStr(f"refresh {name}"),
    }
    return Grant(SecretStr(f"access {name}"), **usual | fields)


async def connect(
    db: Database, user_id: UUID | None, server_id: UUID | None = None, name: str = "first", **f: Any
) -> StoredToken:
    """A user's grant for a server; of their login without one."""
    async with db.transaction() as session:
        token_id = await save_grant(
            session,
            KEYS,
            server_id=server_id,
            user_id=user_id,
            issuer=ISSUER,
            client_id="client",
            token_url=f"{ISSUER}/token",
            resource="https://mcp.example/mcp",
            scopes="read write",
            grant=grant_of(name, **f),
        )
    return await stored(db, token_id)


async def stored(db: Database, token_id: UUID) -> StoredToken:
    token = await read_token(db, KEYS, token_id)
    assert token is not None
    return token
