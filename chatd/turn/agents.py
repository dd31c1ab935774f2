"""What the tools for sub-agents do, and how an agent's end reaches the turn that waits for it."""

from functools import wraps
from typing import Any
from uuid import UUID, uuid5

import orjson

from chatd import logs
from chatd.core.agents import TIMED_OUT, USER_SPOKE, Agent, NewAgent
from chatd.core.budget import cap
from chatd.core.config import DeploymentConfig
from chatd.core.errors import BadRequest, Conflict, NotFound, TooMany, Unavailable
from chatd.core.items import Item, NewItem, Waits
from chatd.core.tools import JsonObject, ToolResult
from chatd.core.work import Claim, PlannedCall
from chatd.store import agents, spawning
from chatd.store.ids import new_id
from chatd.store.informing import end_wait, find_waits_over
from chatd.store.spawning import Commanded
from chatd.store.spending import SpendLimits
from chatd.store.work import patiently
from chatd.tools.agents import (
    Spawn,
    read_chat_id,
    read_message,
    read_spawn,
    read_wait,
    unknown,
    wrong,
)
from chatd.turn.context import CallContext, Handler
from chatd.turn.deps import TurnDeps

_REFUSALS = (BadRequest, Conflict, TooMany)

log = logs.get("agents")


def _refusing(handler: Handler) -> Handler:
    """What the store refuses, the model reads."""

    @wraps(handler)
    async def handle(
        context: CallContext, planned: PlannedCall, arguments: JsonObject, item: Item | None
    ) -> ToolResult | Waits:
        try:
            return await handler(context, planned, arguments, item)
        except NotFound:
            return unknown(arguments.get("chat_id"))
        except _REFUSALS as refused:
            return wrong(" ".join(filter(None, (refused.message, refused.detail))))

    return handle


@_refusing
async def spawn_agent(
    context: CallContext, planned: PlannedCall, arguments: JsonObject, _item: Item | None
) -> ToolResult:
    asked = read_spawn(arguments)
    if isinstance(asked, ToolResult):
        return asked
    db, claim = context.deps.db, context.turn.claim
    await SpendLimits(db).check(claim.owner_id)
    new = NewAgent(
        # One call is one chat, however often it runs.
        chat_id=_place(context, planned),
        turn_id=new_id(),
        type=asked.type,
        prompt=asked.prompt,
        title=asked.title,
        model_config_id=_override(context, asked),
    )
    return _told(context, await spawning.spawn(db, claim, new))


@_refusing
async def wait_agent(
    context: CallContext, planned: PlannedCall, arguments: JsonObject, item: Item | None
) -> ToolResult | Waits:
    asked = read_wait(arguments)
    if isinstance(asked, ToolResult):
        return asked
    if item is not None and item.answer is not None:
        return _result(context, item.answer)
    agent, spoken = await _look(context, asked.chat_id)
    if agent is None:
        return unknown(asked.chat_id)
    if agent.settled or spoken:
        return _result(context, agent.report("" if agent.settled else USER_SPOKE))
    if item is not None or asked.timeout_s == 0:
        return _result(context, agent.report(TIMED_OUT))
    data: JsonObject = {"tool_name": planned.call.name, "args": planned.call.arguments}
    return Waits.on(NewItem("child", data, deadline_s=asked.timeout_s, child_chat_id=asked.chat_id))


@_refusing
async def message_agent(
    context: CallContext, planned: PlannedCall, arguments: JsonObject, _item: Item | None
) -> ToolResult:
    asked = read_message(arguments)
    if isinstance(asked, ToolResult):
        return asked
    db, claim = context.deps.db, context.turn.claim
    await SpendLimits(db).check(claim.owner_id)
    commanded = await spawning.speak(
        db,
        claim,
        asked.chat_id,
        asked.words,
        turn_id=_place(context, planned),
        interrupt=asked.interrupt,
    )
    return _told(context, commanded)


@_refusing
async def interrupt_agent(
    context: CallContext, _planned: PlannedCall, arguments: JsonObject, _item: Item | None
) -> ToolResult:
    chat_id = read_chat_id(arguments)
    if isinstance(chat_id, ToolResult):
        return chat_id
    return _told(context, await spawning.stop(context.deps.db, context.turn.claim, chat_id))


async def list_agents(
    context: CallContext, _planned: PlannedCall, _arguments: JsonObject, _item: Item | None
) -> ToolResult:
    db, claim = context.deps.db, context.turn.claim

    async def read() -> Any:
        return await agents.list_agents(db, claim.chat_id)

    found = await patiently(read)
    return ToolResult(cap(_json([agent.listed() for agent in found]), context.max_text))


async def inform_parent(deps: TurnDeps, claim: Claim) -> bool:
    """After a commit that ended or parked a sub-agent's turn: whoever waits for it goes on.

    Answers whether somebody did. It never fails that turn: what is missed here, a sweeper finds.
    """
    waited = False
    try:
        for item_id, chat_id in await find_waits_over(deps.db, claim.chat_id):
            waited = True
            version = await end_wait(deps.db, item_id, chat_id)
            if version is not None:
                deps.publisher.announce(chat_id, version, owner_id=claim.owner_id)
            deps.wakes.wake()  # a claim passes over a chat that is locked
    except Unavailable:
        pass
    except Exception as error:
        log.exception("a parent was not informed", error=type(error).__name__)
    return waited


HANDLERS: dict[str, Handler] = {
    "spawn_agent": spawn_agent,
    "wait_agent": wait_agent,
    "message_agent": message_agent,
    "interrupt_agent": interrupt_agent,
    "list_agents": list_agents,
}


def _place(context: CallContext, planned: PlannedCall) -> UUID:
    """An id that this call has, whichever worker makes it."""
    return uuid5(context.turn.claim.turn_id, f"{planned.step}/{planned.position}")


def _override(context: CallContext, asked: Spawn) -> UUID | None:
    config = DeploymentConfig.model_validate(context.turn.deployment)
    if asked.type == "explore":
        return config.explore_model_config_id
    return config.general_model_config_id


async def _look(context: CallContext, chat_id: UUID) -> tuple[Agent | None, bool]:
    """The sub-agent, and whether the user has spoken meanwhile."""
    db, root_id = context.deps.db, context.turn.claim.chat_id

    async def read() -> Any:
        return await agents.look(db, root_id, chat_id), await agents.user_spoke(db, root_id)

    return await patiently(read)


def _told(context: CallContext, commanded: Commanded) -> ToolResult:
    """Everybody hears of it who should."""
    deps, changed = context.deps, commanded.changed
    deps.stops.push(changed.stops)
    for chat_id, version in changed.versions.items():
        deps.publisher.announce(chat_id, version, owner_id=context.turn.claim.owner_id)
    deps.wakes.wake()
    return _result(context, commanded.agent.started())


def _result(context: CallContext, answer: JsonObject) -> ToolResult:
    """As JSON; a text that is too long for this model is cut once more."""
    if len(_json(answer)) > context.max_text and "text" in answer:
        answer = {**answer, "text": cap(answer["text"], context.max_text // 2, what="answer")}
    return ToolResult(_json(answer))


def _json(value: object) -> str:
    return orjson.dumps(value).decode()
