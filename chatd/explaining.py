"""What a turn would be offered in a situation, and which rule decided about everything else."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from chatd.catalogue import Catalogue, Listing, Skipped
from chatd.core.reasons import Reason
from chatd.core.servers import McpServer, Principal
from chatd.core.situation import Situation
from chatd.core.tools import BuiltinTool, Dropped, JsonObject, OfferedTool
from chatd.policy.builtins import select_builtins, select_dynamic
from chatd.policy.offer import Offer, offer
from chatd.policy.servers import Selection, chosen_by, hidden, select_servers
from chatd.tools import BUILTINS

LISTING = "tools/list"
"""The rule of what the server itself answered."""

PrincipalOf = Callable[[McpServer], Principal]


@dataclass(frozen=True, slots=True)
class Drop:
    """A server or a tool that is not offered."""

    kind: Literal["server", "tool"]
    dropped: Dropped
    hidden: bool
    """A member is not to learn of it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a server is there at all."""

    kept: bool
    reason: Reason | None
    rule: str


@dataclass(frozen=True, slots=True)
class Explained:
    """What would be offered, in the model's order, and what not."""

    tools: tuple[OfferedTool, ...]
    dropped: tuple[Drop, ...]

    def verdict(self, server: McpServer) -> Verdict:
        for drop in self.dropped:
            if drop.kind == "server" and drop.dropped.server_id == server.id:
                return Verdict(False, drop.dropped.reason, drop.dropped.rule)
        return Verdict(True, None, chosen_by(server))


@dataclass(frozen=True, slots=True)
class Offering:
    """The selected servers, what each of them listed, and the offer made of it."""

    selection: Selection
    outcomes: Sequence[Listing | Skipped]
    offer: Offer
    refused: Sequence[Dropped]
    """Of our own tools."""

    @property
    def listings(self) -> list[tuple[McpServer, Listing]]:
        return _listings(self.selection, self.outcomes)


async def make_offering(
    catalogue: Catalogue,
    selection: Selection,
    situation: Situation,
    principal: PrincipalOf,
    *,
    builtins: Sequence[BuiltinTool] = BUILTINS,
    dynamic_tools: Sequence[JsonObject] = (),
) -> Offering:
    """Our own tools, the servers', the client's: what a turn is offered, and nothing else is.

    Asks the servers whose tools are not known yet, for at most ten seconds together.
    """
    outcomes = await catalogue.lists([(server, principal(server)) for server in selection.kept])
    builtin, refused = select_builtins(builtins, situation)
    offered = offer(
        [(server, listing.tools) for server, listing in _listings(selection, outcomes)],
        plan_mode=situation.plan_mode,
        builtin=builtin,
        dynamic=select_dynamic(dynamic_tools, situation),
    )
    return Offering(selection, outcomes, offered, refused)


def _listings(
    selection: Selection, outcomes: Sequence[Listing | Skipped]
) -> list[tuple[McpServer, Listing]]:
    return [
        (server, outcome)
        for server, outcome in zip(selection.kept, outcomes, strict=True)
        if isinstance(outcome, Listing)
    ]


async def explain(
    catalogue: Catalogue,
    servers: Sequence[McpServer],
    situation: Situation,
    principal: PrincipalOf,
    *,
    builtins: Sequence[BuiltinTool] = BUILTINS,
    dynamic_tools: Sequence[JsonObject] = (),
) -> Explained:
    """What a turn would be offered, and why nothing else."""
    selection = select_servers(servers, situation)
    made = await make_offering(
        catalogue, selection, situation, principal, builtins=builtins, dynamic_tools=dynamic_tools
    )
    secret = {server.id for server in servers if hidden(server, situation)}
    whole, single = _dropped(made)
    dropped = [Drop("server", drop, drop.server_id in secret) for drop in whole]
    dropped += [Drop("tool", drop, drop.server_id in secret) for drop in single]
    return Explained(made.offer.tools, tuple(dropped))


async def withheld(
    catalogue: Catalogue, server: McpServer, principal: Principal, tool: str
) -> Reason | None:
    """Why a server with pinned tools does not serve this one; None when it does."""
    (outcome,) = await catalogue.lists([(server, principal)])
    if isinstance(outcome, Skipped):
        return outcome.reason
    return None if any(spec.name == tool for spec in outcome.tools) else "changed"


def _dropped(made: Offering) -> tuple[list[Dropped], list[Dropped]]:
    """Whole servers, and single tools."""
    whole = list(made.selection.dropped)
    single: list[Dropped] = []
    for server, outcome in zip(made.selection.kept, made.outcomes, strict=True):
        if isinstance(outcome, Skipped):
            drop = Dropped(server.slug, outcome.reason, server.id, outcome.detail, LISTING)
            whole.append(drop)
        else:
            single += [_ruled(drop) for drop in outcome.quarantined]
    return whole, [*single, *made.refused, *made.offer.dropped]


def _ruled(drop: Dropped) -> Dropped:
    """What no setting decided but what the server says."""
    return drop if drop.rule else replace(drop, rule=LISTING)
