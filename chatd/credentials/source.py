"""A kind of tokens: whose row it is, and how a newer one is asked for."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import ClassVar
from uuid import UUID

import httpx2

from chatd.core.oauth import Client, Grant, ReauthReason, StoredToken
from chatd.core.servers import McpAuth, McpServer, Principal
from chatd.credentials.failures import NotConnected, NoToken
from chatd.credentials.timing import AHEAD_S
from chatd.oauth import tokens as endpoint
from chatd.oauth.errors import Refused, Unreachable
from chatd.outbound import Outbound
from chatd.store import oauth_tokens
from chatd.store.db import Database
from chatd.store.secrets import KeyRing


@dataclass(frozen=True, slots=True)
class Kit:
    """What sources work with. `login`: as whom users' logins are renewed, if there are logins."""

    db: Database
    keys: KeyRing
    outbound: Outbound
    login: Client | None = None

    async def http(self, configured_url: str) -> httpx2.AsyncClient:
        """For the endpoints of a server or provider that was configured with this URL."""
        try:
            return await self.outbound.discovery_client(configured_url)
        except (httpx2.HTTPError, httpx2.InvalidURL):
            pass
        raise Unreachable("the host has no address")


Usable = Callable[["Source", McpServer, Principal], Awaitable[StoredToken]]
"""The token that another source hands out, renewed if need be."""


class Source(ABC):
    """A kind of tokens: whose row it is, and how a new one is asked for.

    What asks raises Refused, Unreachable, NoToken.
    """

    ahead_s: ClassVar[float] = AHEAD_S
    one_server: ClassVar[bool] = False
    """It is a user's connection to one server: what that server says decides about it."""
    of_user: ClassVar[bool] = False
    """Its user can have another one, by connecting or signing in again."""

    def __init__(self, kit: Kit, usable: Usable) -> None:
        self._kit = kit
        self._usable = usable

    @staticmethod
    @abstractmethod
    def serves(auth: McpAuth) -> bool: ...

    @abstractmethod
    async def find(self, server: McpServer, principal: Principal) -> StoredToken | None:
        """The row as it is now. Raises Tampered, UnknownKey, Unavailable."""

    @abstractmethod
    async def ask(self, server_url: str, token: StoredToken) -> Grant:
        """A newer token for the row's."""

    async def first(self, server: McpServer, principal: Principal) -> StoredToken:
        """When there is no row yet."""
        raise NotConnected("not_connected")

    def renewable(self, token: StoredToken) -> bool:
        return token.refresh_token is not None

    async def lost(self, token: StoredToken, refused: Refused) -> ReauthReason | None:
        """What a refusal means for the user; None: nothing is lost."""
        return "invalid_grant" if refused.permanent else None

    async def give_back(self, server_url: str, token: StoredToken, grant: Grant) -> None:
        """What was asked for in vain: the row's end came first. Nothing, where that cannot be
        done."""
        return

    async def unwanted(self, token: StoredToken) -> ReauthReason:
        """Why its server refuses it, when it has refused a new one too or none can be had."""
        return "unauthorized"

    def carries(self, url: str) -> bool:
        """Whether its tokens may go to this URL; outside of the allow-list nothing is sent in the
        clear anyway."""
        return True


async def refreshed(
    http: httpx2.AsyncClient, token_url: str, client: Client, token: StoredToken
) -> Grant:
    if token.refresh_token is None:
        raise NoToken("there is nothing to refresh with")
    return await endpoint.refresh(
        http,
        token_url,
        client,
        refresh_token=token.refresh_token,
        resource=token.resource,
        issuer=token.issuer,
    )


async def stored(
    kit: Kit,
    grant: Grant,
    *,
    server_id: UUID,
    user_id: UUID | None,
    issuer: str,
    client_id: str,
    token_url: str,
    resource: str,
    scopes: str = "",
) -> StoredToken:
    async with kit.db.transaction() as session:
        await oauth_tokens.save_grant(
            session,
            kit.keys,
            server_id=server_id,
            user_id=user_id,
            issuer=issuer,
            client_id=client_id,
            token_url=token_url,
            resource=resource,
            scopes=scopes,
            grant=grant,
            connects=False,
        )
    # Of two processes that asked at once one has replaced the other's.
    found = await oauth_tokens.read_token_of(kit.db, kit.keys, server_id=server_id, user_id=user_id)
    if found is None:
        raise NoToken("the token was removed")
    return found
