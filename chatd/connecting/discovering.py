"""A configured server's authorization server, found and introduced to: at first, and again later.

The server's row comes first, because its id is in the redirect URI that is registered. The network
is asked outside of any transaction; what it said counts only if nobody has changed the server
meanwhile.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import NamedTuple
from uuid import UUID

import httpx2

from chatd import audit
from chatd.audit import By, Target
from chatd.connecting.refusals import client_by_hand, refusal
from chatd.core.errors import BadRequest, Conflict
from chatd.core.oauth import CALLBACK_PATH, Client, Discovered
from chatd.core.tools import JsonObject
from chatd.oauth.attempts import (
    MANUAL,
    Attempt,
    Attempted,
    DiscoveryFailed,
    RegistrationFailed,
    shown,
)
from chatd.oauth.discovery import discover
from chatd.oauth.registration import choose_client, client_document
from chatd.oauth.urls import canonical, is_document_url
from chatd.outbound import Outbound
from chatd.store import oauth_servers, policy_state, servers
from chatd.store.db import Database, Session
from chatd.store.oauth_servers import Configured, OAuthServer
from chatd.store.secrets import KeyRing
from chatd.store.server_settings import ServerSettings
from chatd.store.server_views import View

CLIENT_NAME = "chatd"
DOCUMENT_PATH = "/api/experimental/mcp/servers/{server}/oauth2/client-metadata.json"
_LASTING = "offline_access"


class Found(NamedTuple):
    """Of one search."""

    discovered: Discovered
    client: Client


Kept = Callable[[Discovered], Client | None]


def _nobody(_: Discovered) -> None: ...


class Discovering:
    def __init__(self, db: Database, keys: KeyRing, outbound: Outbound, access_url: str) -> None:
        self._db = db
        self._keys = keys
        self._outbound = outbound
        self._url = access_url

    async def add(
        self,
        settings: ServerSettings,
        by: By,
        secrets: Collection[str],
        server_id: UUID | None = None,
    ) -> View:
        """A new server, disabled until it is complete. On failure nothing of it stays.

        Raises `Conflict` when the slug is taken, `BadRequest` with every URL that was tried.
        """
        async with self._db.transaction() as session:
            waiting = replace(settings, enabled=False)
            made = await servers.create_server(
                session, self._keys, waiting, by.actor_id, server_id=server_id
            )
        server_id = UUID(made["id"])
        try:
            found = await self.find(server_id, settings.url, expected=settings.oauth2_issuer)
            async with self._db.transaction() as session:
                await policy_state.bump(session)
                await oauth_servers.configure(
                    session,
                    self._keys,
                    server_id,
                    configured(found, settings.oauth2_scopes.split()),
                    by=by.actor_id,
                    version=made["version"],
                    enabled=settings.enabled,
                )
                view = await servers.get_server(session, server_id, caller=by.actor_id)
                target = Target("mcp_server", server_id)
                audit.record(session, by, "create", target, after=view, secrets=secrets)
        except BaseException:
            await asyncio.shield(self._take_away(server_id, made["version"]))
            raise
        return view

    async def find(
        self, server_id: UUID, url: str, kept: Kept = _nobody, *, expected: str = ""
    ) -> Found:
        """Raises `BadRequest` with every URL that was tried. `kept`: the client that is known there
        already, if there is one. `expected`: the only issuer that counts."""
        found = None
        try:
            http = await self._client(url)
            try:
                found = await discover(http, url, expected=expected)
            except DiscoveryFailed as error:
                return await self._conventional(http, server_id, url, error, kept)
            return Found(found, kept(found) or await self._introduce(http, server_id, found))
        except Attempted as error:
            raise refusal(error, server_id, found) from error

    async def _conventional(
        self,
        http: httpx2.AsyncClient,
        server_id: UUID,
        url: str,
        failed: DiscoveryFailed,
        kept: Kept,
    ) -> Found:
        """What servers of 2025-03-26 have without saying it; no other sign of it than that a
        registration there goes well. Raises `DiscoveryFailed`."""
        if failed.conventional is None:
            raise failed
        found = Discovered(canonical(httpx2.URL(url)), (), failed.conventional)
        try:
            return Found(found, kept(found) or await self._introduce(http, server_id, found))
        except RegistrationFailed as error:
            attempts = (*failed.attempts, *error.attempts)
            raise DiscoveryFailed(attempts, failed.next_step) from None

    async def again(self, server_id: UUID, by: By, *, register: bool = False) -> View:
        """Look once more, on demand: endpoints are read anew; the client stays unless the issuer is
        another one, or `register` asks for a new one. Raises as `find`, and `Conflict`."""
        server = await oauth_servers.read_server(self._db, self._keys, server_id)
        if server.auth_type != "oauth2":
            raise BadRequest("This MCP server's auth type is not oauth2.")

        def kept(found: Discovered) -> Client | None:
            stays = server.ready and same_issuer(server, found) and not register
            if server.ready and server.client.source == "manual" and not stays:
                raise client_by_hand(found)
            return server.client if stays else None

        expected = server.expected_issuer
        found = await self.find(server_id, server.url, kept, expected=expected)
        scopes = server.scopes if same_issuer(server, found.discovered) else ()
        return await self.apply(server, found, by, scopes)

    async def under_name(self, server_id: UUID, expected: str, scopes: Sequence[str]) -> Configured:
        """As it will be with another name to expect, or none: at the same issuer its client stays,
        and its scopes unless there are others. Raises as `find`."""
        server = await oauth_servers.read_server(self._db, self._keys, server_id)

        def kept(found: Discovered) -> Client | None:
            return server.client if same_issuer(server, found) else None

        found = await self.find(server_id, server.url, kept, expected=expected)
        stays = same_issuer(server, found.discovered)
        return configured(found, scopes or (server.scopes if stays else ()))

    async def apply(self, server: OAuthServer, found: Found, by: By, scopes: Sequence[str]) -> View:
        """`scopes`: as in `configured`. Raises `Conflict` when somebody has changed the server
        since it was read."""
        async with self._db.transaction() as session:
            await policy_state.bump(session)
            before = await servers.get_server(session, server.id, lock=True)
            if before["version"] != server.version:
                raise Conflict("The MCP server config was changed meanwhile.")
            await oauth_servers.configure(
                session,
                self._keys,
                server.id,
                configured(found, scopes),
                by=by.actor_id,
                version=server.version,
            )
            after = await servers.get_server(session, server.id)
            target = Target("mcp_server", server.id)
            audit.record(session, by, "discover", target, before=before, after=after)
        return after

    async def _introduce(
        self, http: httpx2.AsyncClient, server_id: UUID, discovered: Discovered
    ) -> Client:
        return await choose_client(
            http,
            discovered.issuer,
            document_url=self._url + DOCUMENT_PATH.format(server=server_id),
            redirect_uris=(self._url + CALLBACK_PATH.format(server=server_id),),
            client_name=CLIENT_NAME,
            client_uri=self._url,
        )

    async def _client(self, url: str) -> httpx2.AsyncClient:
        """Raises `DiscoveryFailed`."""
        try:
            return await self._outbound.discovery_client(url)
        except (httpx2.HTTPError, httpx2.InvalidURL):
            attempt = Attempt(shown(url), "its host cannot be found", "unreachable")
            step = f"Check the URL, or give {MANUAL}."
            raise DiscoveryFailed([attempt], step) from None

    async def _take_away(self, server_id: UUID, version: int) -> None:
        """A server that never was complete; unless somebody has completed it meanwhile."""
        async with self._db.transaction() as session:
            await oauth_servers.remove_unfinished(session, server_id, version)


def client_metadata(access_url: str, server_id: UUID) -> JsonObject | None:
    """What our client id at this server's issuer stands for; None where no issuer could read it.

    A document for each server: it is kept by those that have read it, so one that grew with every
    new server would be told too late.
    """
    url = access_url + DOCUMENT_PATH.format(server=server_id)
    if not is_document_url(url):
        return None
    redirect_uri = access_url + CALLBACK_PATH.format(server=server_id)
    return client_document(url, [redirect_uri], client_name=CLIENT_NAME, client_uri=access_url)


def configured(found: Found, scopes: Sequence[str]) -> Configured:
    """`scopes`: those an administrator wants; none: those that were found."""
    discovered = found.discovered
    wanted = tuple(scopes) or discovered.scopes
    lasting = _LASTING in discovered.issuer.scopes_supported
    if not scopes and wanted and lasting and _LASTING not in wanted:
        wanted = (*wanted, _LASTING)
    return Configured(discovered.issuer, found.client, discovered.resource, wanted)


async def set_found(
    session: Session, keys: KeyRing, view: View, found: Configured, by: UUID | None
) -> View:
    """Right after a change of the server: what was found for what it is now."""
    server_id = UUID(view["id"])
    await oauth_servers.configure(session, keys, server_id, found, by=by, version=view["version"])
    return await servers.get_server(session, server_id, caller=by)


def same_issuer(server: OAuthServer, discovered: Discovered) -> bool:
    """One that was configured by hand may have no name: then by where its tokens come from."""
    if server.issuer.issuer:
        return server.issuer.issuer == discovered.issuer.issuer
    return server.issuer.token_endpoint == discovered.issuer.token_endpoint
