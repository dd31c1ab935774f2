"""Users who have connected a server, or signed in, at an authorization server of ours."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pydantic import SecretStr

from chatd.core.oauth import Grant, StoredToken
from chatd.core.servers import McpServer, Principal, visitor
from chatd.store.chat_servers import load_server
from chatd.store.db import Database
from chatd.store.oauth_tokens import read_token, save_grant
from chatd.store.secrets import KeyRing
from tests.credentials.rotating import Rotating
from tests.seed import KEYS, make_server, make_user

CLIENT_ID = "our-client"


@dataclass(frozen=True)
class Account:
    """A user's connection to a server."""

    db: Database
    server: McpServer
    principal: Principal
    user_id: UUID

    @property
    def token_id(self) -> UUID:
        assert self.principal.connection_id is not None
        return self.principal.connection_id

    async def token(self) -> StoredToken:
        token = await read_token(self.db, KEYS, self.token_id)
        assert token is not None
        return token

    async def row(self) -> dict[str, Any]:
        row = await self.db.fetch_one("SELECT * FROM oauth_tokens WHERE id = $1", self.token_id)
        assert row is not None
        return dict(row)

    async def age(self, left_s: float) -> None:
        """As if the access token were to end in so many seconds."""
        await self.db.fetch(
            """UPDATE oauth_tokens SET expires_at = clock_timestamp() + make_interval(secs => $2)
            WHERE id = $1""",
            self.token_id,
            left_s,
        )

    async def give_up_lease(self) -> None:
        """As if the fifteen seconds of whoever holds it were over."""
        await self.db.fetch(
            "UPDATE oauth_tokens SET refreshing_until = clock_timestamp() WHERE id = $1",
            self.token_id,
        )

    async def wait(self) -> None:
        """As if the time until it is tried again were over, and everybody's pause."""
        await self.give_up_lease()
        await self.db.fetch(
            "UPDATE oauth_tokens SET retry_at = clock_timestamp() WHERE id = $1", self.token_id
        )


def grant_of(answer: dict[str, Any]) -> Grant:
    refresh = answer.get("refresh_token")
    return Grant(
        access_token=SecretStr(answer["access_token"]),
        token_type=answer["token_type"],
        expires_in_s=answer.get("expires_in"),
        refresh_token=SecretStr(refresh) if refresh else None,
    )


async def make_oauth_server(db: Database, authority: Rotating, **changes: Any) -> UUID:
    values: dict[str, Any] = {
        "url": f"{authority.url}/mcp",
        "auth_type": "oauth2",
        "oauth2_client_id": CLIENT_ID,
        "oauth2_auth_url": f"{authority.url}/authorize",
        "oauth2_token_url": authority.token_url,
    }
    return await make_server(db, **(values | changes))


async def keep(
    db: Database,
    authority: Rotating,
    answer: dict[str, Any],
    *,
    server_id: UUID | None,
    user_id: UUID | None,
    client_id: str = CLIENT_ID,
    keys: KeyRing = KEYS,
) -> None:
    async with db.transaction() as session:
        await save_grant(
            session,
            keys,
            server_id=server_id,
            user_id=user_id,
            issuer="",
            client_id=client_id,
            token_url=authority.token_url,
            resource="",
            scopes="",
            grant=grant_of(answer),
        )


async def account_of(db: Database, server_id: UUID, user_id: UUID) -> Account:
    server = await load_server(db, KEYS, server_id, user_id)
    return Account(db, server, visitor(server, user_id), user_id)


async def connect(
    db: Database, authority: Rotating, *, refreshable: bool = True, **changes: Any
) -> Account:
    """A new user who has just connected a new server."""
    user = await make_user(db, "ada")
    server_id = await make_oauth_server(db, authority, **changes)
    answer = authority.grant()
    if not refreshable:
        del answer["refresh_token"]
    await keep(db, authority, answer, server_id=server_id, user_id=user.user_id)
    return await account_of(db, server_id, user.user_id)


async def sign_in(
    db: Database, authority: Rotating, *, audience: str = "", url: str = ""
) -> Account:
    """A new user who has signed in, and a server that wants the login's token."""
    user = await make_user(db, "ada")
    server_id = await make_server(
        db,
        url=url or f"{authority.url}/mcp",
        auth_type="user_oidc",
        oidc_audience=audience,
    )
    await keep(db, authority, authority.grant(), server_id=None, user_id=user.user_id)
    return await account_of(db, server_id, user.user_id)
