"""Where a turn may be when the weather comes: how it gets there, and how we know that it has."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from tests.e2e.client import Posted, at_once, call
from tests.e2e.journal import appended, reaches
from tests.waiting import soon, until
from tests.weather.ground import Ground, Hold, Scene

WITHIN_S = 20.0

There = Callable[[Ground, Scene], Awaitable[None]]
Starts = Callable[[Ground], Awaitable[Scene]]


def says(*scripts: tuple[str, ...], **fields: Any) -> Starts:
    """A chat with these turns, one behind the other."""

    async def start(ground: Ground) -> Scene:
        return await ground.scene(*scripts, **fields)

    return start


async def nothing(ground: Ground, scene: Scene) -> None:
    """The turn needs nobody to go on."""


@dataclass(frozen=True)
class Moment:
    """`own_s` is what model and tools need, at most twice; `act` is what the user then does, and
    `afterwards` returns when there is what is no message."""

    name: str
    start: Starts
    there: There
    own_s: float
    act: There = nothing
    steady: bool = False
    """It lasts until it is released, or until the user acts."""
    afterwards: There = nothing

    async def bring(self, ground: Ground) -> Scene:
        scene = await self.start(ground)
        await self.there(ground, scene)
        return scene


async def streaming(ground: Ground, scene: Scene) -> None:
    await scene.reader.until(lambda view: view.preview.startswith("word1 word2 "), WITHIN_S)


async def retrying(ground: Ground, scene: Scene) -> None:
    await scene.reader.until(lambda view: view.retries, WITHIN_S)


async def sent(ground: Ground, scene: Scene) -> None:
    await reaches(ground.db, scene.posted[0], "sent")


async def unsafe_sent(ground: Ground, scene: Scene) -> None:
    """The server has done it, and its answer does not come through."""
    await soon(lambda: appended(ground.fleet, scene.token))


async def half_done(ground: Ground, scene: Scene) -> None:
    await unsafe_sent(ground, scene)
    await reaches(ground.db, scene.posted[0], "done", "sent", "sent")


async def committing(ground: Ground, scene: Scene) -> None:
    """The worker's next commit waits for the chat that we hold."""
    await held_calls(ground, scene)
    scene.hold = await Hold.on(ground.fleet.stack.database_url, scene.chat_id)
    assert scene.gate is not None
    scene.gate.open()
    await scene.hold.waited_for()


async def asking(ground: Ground, scene: Scene) -> None:
    """The turn is parked, and shown as waiting for the user."""
    turn_id = scene.posted[0].turn_id
    await scene.reader.until(lambda view: view.turns.get(turn_id) == "requires_action", WITHIN_S)


async def held_calls(ground: Ground, scene: Scene) -> None:
    """The model has heard what it was asked, and its answers do not come through."""
    await until(lambda: ground.heard(scene.model, scene.calls))


async def titled(ground: Ground, scene: Scene) -> None:
    """By a model: the first words no longer stand in for it."""
    source = "SELECT 1 FROM chats WHERE id = $1 AND title_source = 'generated'"
    await until(lambda: ground.db.fetch(source, UUID(scene.chat_id)), WITHIN_S)


async def approve(ground: Ground, scene: Scene) -> None:
    await ground.answer(scene, "approval", "approvals", {"decision": "approve"})


async def tell_name(ground: Ground, scene: Scene) -> None:
    answer = {"action": "accept", "content": {"name": "Ada"}}
    await ground.answer(scene, "elicitation", "elicitations", answer)


async def run_client_tool(ground: Ground, scene: Scene) -> None:
    item = await ground.open_item(scene, "tool_result")
    results = [{"tool_call_id": item["tool_call_id"], "output": "from the client"}]
    await ground.insist(f"/chats/{scene.chat_id}/tool-results", {"results": results})


async def with_approval(ground: Ground) -> Scene:
    line = call("careful__append", text="TOKEN")
    return await ground.scene((line, "/say approved"), mcp_server_ids=[ground.careful])


async def with_client_tool(ground: Ground) -> Scene:
    schema = {"type": "object", "properties": {}}
    tool = {"name": "look", "description": "Looks.", "input_schema": schema}
    return await ground.scene(("/call look {}", "/echo"), unsafe_dynamic_tools=[tool])


async def compacting(ground: Ground) -> Scene:
    """A chat that has something to sum up, and a turn that does it with a model that we hold."""
    gate, config = await ground.held_model("scripted-summary")
    scene = await ground.scene(("/say something to sum up",), model_config_id=config)
    await ground.member.ended(scene.posted[0])
    scene.model, scene.calls = "scripted-summary", await ground.asked("scripted-summary") + 1
    gate.shut()
    body = await ground.member.post(f"/chats/{scene.chat_id}/compact", {})
    scene.posted.append(Posted(scene.chat_id, body["turn"]["id"], body))
    return scene


def held(name: str, *scripts: tuple[str, ...]) -> Starts:
    """A chat whose model we hold; so is its title, which the worker asks for first."""

    async def start(ground: Ground) -> Scene:
        gate, config = await ground.held_model(name)
        calls = await ground.asked(name) + 1
        gate.shut()
        scene = await ground.scene(*scripts, model_config_id=config)
        scene.gate, scene.model, scene.calls = gate, name, calls
        return scene

    return start


LONG = "/long 80 50"
APPEND = call("ledger__append", text="TOKEN")
SLOW = call("demo__slow", seconds=4)
ADD = call("demo__add", a=2, b=3)
TOGETHER = at_once(ADD, SLOW, APPEND)

MOMENTS = (
    Moment("model streaming", says((LONG,)), streaming, 9),
    Moment("model retry wait", says(("/fail 503 1 4", "/say after the retry")), retrying, 8),
    Moment("safe call sent", says((SLOW, "/echo")), sent, 9),
    Moment("unsafe call sent", says((APPEND, "/say appended")), unsafe_sent, 2, steady=True),
    Moment("parallel calls half done", says((TOGETHER, "/say all done")), half_done, 9),
    Moment("commit", held("scripted-commit", (ADD, "/say added")), committing, 3, steady=True),
    Moment(
        "promoting",
        held("scripted-finish", ("/say first",), ("/say second",)),
        committing,
        3,
        steady=True,
    ),
    Moment("waiting for approval", with_approval, asking, 2, approve, steady=True),
    Moment("waiting for the client", with_client_tool, asking, 2, run_client_tool, steady=True),
    Moment(
        "elicitation",
        says((call("demo__ask"), "/echo")),
        asking,
        3,
        tell_name,
        steady=True,
    ),
    Moment("compaction", compacting, held_calls, 3, steady=True),
    Moment(
        "title",
        held("scripted-title", ("/say titled",)),
        held_calls,
        3,
        steady=True,
        afterwards=titled,
    ),
)
