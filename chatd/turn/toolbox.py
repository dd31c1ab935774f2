"""The tools of one turn: selected, named, and asked about again before each call."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from chatd.catalogue import Skipped
from chatd.core.accounts import AUTH_REQUIRED, account_notice, connectable, sentence
from chatd.core.errors import TurnFailed, turn_error
from chatd.core.reasons import SENTENCES, Reason
from chatd.core.servers import McpServer, Principal, UserAuth, principal_of
from chatd.core.situation import Situation, unauthorised
from chatd.core.tools import OfferedTool
from chatd.core.work import LoadedTurn, Notice
from chatd.explaining import Offering, make_offering
from chatd.policy.offer import Offer
from chatd.policy.servers import Selection, missing_account, select_servers
from chatd.policy.tools import Served, tool_refusal
from chatd.store.accounts import read_account
from chatd.store.loading import Policy
from chatd.store.work import patiently
from chatd.turn.deps import Control, TurnDeps

NOTIFIED: frozenset[Reason] = frozenset(
    {
        "auth_required",
        "unusable_credentials",
        "forbidden",
        "not_found",
        "unreachable",
        "bad_answer",
        "unusable_name",
        "unusable_schema",
        "duplicate_name",
        "changed",
    }
)
"""Reasons for which a user wants to know; the others are how the chat was set up."""


class Toolbox:
    """Knows the turn's servers as of `policy_version`; reloads them when policy has moved."""

    def __init__(self, deps: TurnDeps, turn: LoadedTurn, control: Control) -> None:
        self._deps = deps
        self.turn = turn
        self._control = control
        self._take(Policy(turn.policy_version, turn.servers, turn.group_ids))
        self._offer = Offer((), {}, ())
        self._offered_for = 0
        self._decided_for = 0
        self._served: Served | None = None
        self._skipped: dict[UUID | None, Reason] = {}
        self._moving = asyncio.Lock()
        self._told = set(map(_thing, turn.notices))
        self.notices: list[Notice] = []
        """What the user should know and no commit has stored yet."""
        self.instructions: list[tuple[str, str]] = []
        """What the servers of the offered tools say of themselves, by slug."""

    @property
    def policy_version(self) -> int:
        """What the turn's servers were read at."""
        return self._policy_version

    @property
    def decided_for(self) -> int:
        """The policy that `refusal` goes by in everything, pins too."""
        return self._decided_for

    @property
    def tools(self) -> Sequence[OfferedTool]:
        return self._offer.tools

    @property
    def by_name(self) -> dict[str, OfferedTool]:
        return dict(self._offer.by_name)

    async def open(self, *, waits: bool = False) -> Sequence[McpServer]:
        """Select the servers, get their lists (all at once, from the catalogue), name the tools.

        With `waits` it answers those that the user has to connect, and tells nobody anything yet.
        """
        self._offered_for = version = self._policy_version
        selection = select_servers(self._servers.values(), self._situation)
        if not waits:
            self._require(selection)
        made = await self._offering(selection)
        self._offer, self._decided_for = made.offer, version
        self._served = None
        offered = {tool.server_id for tool in self._offer.tools}
        self.instructions = [
            (server.slug, listing.instructions)
            for server, listing in made.listings
            if server.id in offered
        ]
        await self._note_step_ups(made)
        asked = self._connectable(made) if waits else ()
        if not asked:
            self._require(selection)
            self._notify(made)
        return asked

    async def refresh(self) -> bool:
        """Decide again if policy has moved since the offer was made; answers whether it had."""
        if self._control.policy_version > self._policy_version:
            await self.reload()
        if self._policy_version == self._offered_for:
            return False
        await self.open()
        return True

    async def catch_up(self, version: int) -> None:
        """Decide about calls by a newer policy than that, pins too; once for all that ask together.

        What is offered is for the next step to say: the calls at hand are of the offer before.
        """
        async with self._moving:
            if self._decided_for > version:
                return
            await self.reload()
            version = self._policy_version
            selection = select_servers(self._servers.values(), self._situation)
            pinned = tuple(s for s in selection.kept if s.tool_changes != "follow")
            made = await self._offering(replace(selection, kept=pinned))
            self._decided_for = version
            self._served = {
                (tool.server_id, tool.original_name): tool.definition_hash
                for tool in made.offer.tools
                if tool.server_id is not None
            }
            skipped = [outcome for outcome in made.outcomes if isinstance(outcome, Skipped)]
            self._skipped = {outcome.server_id: outcome.reason for outcome in skipped}

    async def _offering(self, selection: Selection) -> Offering:
        return await make_offering(
            self._deps.catalogue,
            selection,
            self._situation,
            self.principal,
            dynamic_tools=self.turn.dynamic_tools,
        )

    def server(self, tool: OfferedTool) -> McpServer | None:
        """Where the tool lives; None for one that is not a server's."""
        return self._servers.get(tool.server_id) if tool.server_id else None

    def configured(self, server: McpServer) -> McpServer:
        """The same server as policy has it now."""
        return self._servers.get(server.id, server)

    def refusal(self, tool: OfferedTool) -> Reason | None:
        """Why this call may not go out, as policy is now."""
        reason = tool_refusal(tool, self._servers, self._situation, self._served)
        return self._skipped.get(tool.server_id, reason) if reason == "changed" else reason

    async def reload(self) -> None:
        """Read it all again: policy has moved. What was read last may not be the newest."""
        policy = await self._deps.loader.reload_policy(self.turn.claim)
        if policy.version >= self._policy_version:
            self._take(policy)

    def _take(self, policy: Policy) -> None:
        turn = self.turn
        self._policy_version = policy.version
        self._servers = {server.id: server for server in policy.servers}
        self._situation = Situation(
            selected_ids=turn.selected_ids,
            plan_mode=turn.plan_mode,
            is_child=turn.parent_chat_id is not None,
            explore=turn.mode == "explore",
            group_ids=policy.group_ids,
            unauthorised_ids=unauthorised(policy.servers),
        )

    def _require(self, selection: Selection) -> None:
        """Raises `TurnFailed` where an administrator wants no turn without a server."""
        server = missing_account(self._servers, selection)
        if server is not None:
            message = f"Connect your account to {server.display_name} first."
            raise TurnFailed(turn_error("auth_required", message))

    def principal(self, server: McpServer) -> Principal:
        """On whose behalf this turn speaks to the server."""
        claim = self.turn.claim
        return principal_of(
            server,
            user_id=claim.owner_id,
            chat_id=claim.chat_id,
            root_chat_id=self.turn.root_chat_id or claim.chat_id,
        )

    async def _note_step_ups(self, made: Offering) -> None:
        """A server may want more access than it was given before it lists its tools."""
        for server, outcome in zip(made.selection.kept, made.outcomes, strict=True):
            if not isinstance(outcome, Skipped):
                continue
            if outcome.reason not in ("forbidden", "auth_required"):
                continue
            if isinstance(server.auth, UserAuth):
                known = server.auth.connection_id
                account = await patiently(lambda known=known: read_account(self._deps.db, known))
                if account is None:
                    continue
                more = "insufficient_scope" if account.wants_more else None
                why = more if outcome.reason == "forbidden" else account.needs_reauth
                if why is not None:
                    auth = server.auth.model_copy(update={"needs_reauth": why})
                    self._servers[server.id] = replace(server, auth=auth)

    def _connectable(self, made: Offering) -> Sequence[McpServer]:
        skipped = [outcome for outcome in made.outcomes if isinstance(outcome, Skipped)]
        accounts = [
            self._account(drop.server_id, drop.reason)
            for drop in (*made.selection.dropped, *skipped)
        ]
        return [server for server, auth in filter(None, accounts) if connectable(auth)]

    def _account(self, server_id: UUID | None, reason: Reason) -> tuple[McpServer, UserAuth] | None:
        """The server, if it is dropped for what its user can mend."""
        server = self._servers.get(server_id) if server_id else None
        if server is None or not isinstance(server.auth, UserAuth):
            return None
        wanted = reason == "auth_required" or (
            reason == "forbidden" and server.auth.needs_reauth == "insufficient_scope"
        )
        return (server, server.auth) if wanted else None

    def _notify(self, made: Offering) -> None:
        for drop in made.selection.dropped:
            self._notice(drop.reason, drop.server_id, drop.name)
        for server, outcome in zip(made.selection.kept, made.outcomes, strict=True):
            if isinstance(outcome, Skipped):
                self._notice(outcome.reason, server.id, server.slug)
            else:
                for drop in outcome.quarantined:
                    self._notice(drop.reason, server.id, f"{server.slug}: {drop.name}")
        slugs = {server.id: server.slug for server in self.turn.servers}
        for drop in made.offer.dropped:
            slug = slugs.get(drop.server_id, "") if drop.server_id else ""
            self._notice(drop.reason, drop.server_id, f"{slug}: {drop.name}")

    def _notice(self, reason: Reason, server_id: UUID | None, name: str) -> None:
        account = self._account(server_id, reason)
        if account is not None:
            self.tell_account(account[0], sentence(account[1]))
        elif reason in NOTIFIED:
            of = str(server_id) if server_id else None
            self._tell(Notice(code=reason, server_id=of, message=f"{name}: {SENTENCES[reason]}"))

    def tell_account(self, server: McpServer, says: str) -> Notice | None:
        """What the user has to do about their account; None when they have heard of it."""
        return self._tell(account_notice(server, says))

    def _tell(self, notice: Notice) -> Notice | None:
        """Once per turn and thing, whichever attempt told it."""
        if _thing(notice) in self._told:
            return None
        self._told.add(_thing(notice))
        self.notices.append(notice)
        return notice


def _thing(notice: Notice) -> tuple[str, str | None]:
    about = notice["server_id"] if notice["code"] == AUTH_REQUIRED else notice["message"]
    return notice["code"], about
