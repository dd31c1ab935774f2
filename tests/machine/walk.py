"""A random walk through everything that users, workers and sweepers do; the same for a seed."""

import random
from collections.abc import Awaitable, Callable
from typing import Any

from tests.machine.world import WRITES, Worker, World

Action = Callable[[World, random.Random], Awaitable[None] | None]
"""Does it, or answers None when there is nothing to do it to."""


def on(
    things: Callable[[World], list[Any]], act: Callable[..., Awaitable[object]], *more: list[Any]
) -> Action:
    """One command on one of these things, with one value of each list."""

    def action(world: World, dice: random.Random) -> Awaitable[None] | None:
        found = things(world)
        if not found:
            return None
        drawn = [dice.choice(found), *(dice.choice(values) for values in more)]
        return world.do(act(world, *drawn))

    return action


def chats(world: World) -> list[Any]:
    return world.chats


def holders(world: World) -> list[Worker]:
    return world.holders


def idle(world: World) -> list[Worker]:
    """Workers whose model speaks."""
    return [worker for worker in world.holders if not worker.open]


def stepped(world: World) -> list[Worker]:
    return [worker for worker in world.holders if worker.open]


def calling(world: World) -> list[Worker]:
    """Workers with calls that have no result."""
    return [worker for worker in world.holders if worker.unanswered]


ENDINGS = ["completed", "completed", "failed"]
KINDS = ["approval", "tool_result"]

ACTIONS: dict[str, tuple[int, Action]] = {
    # users
    "create": (2, lambda world, dice: None if len(world.chats) > 3 else world.do(world.create())),
    "send": (6, on(chats, World.send)),
    "interject": (1, on(chats, World.interject)),
    "interrupt": (2, on(chats, World.interrupt)),
    "promote": (3, on(World.queued, World.promote)),
    "delete queued": (1, on(World.queued, World.delete_queued)),
    "edit": (1, on(World.editable, World.edit)),
    "regenerate": (1, on(chats, World.regenerate)),
    "clear": (3, on(chats, World.clear)),
    "archive": (2, on(chats, World.archive, [True, False])),
    "delete": (1, on(chats, World.delete)),
    "answer": (10, on(World.open_items, World.answer)),
    # workers
    "claim": (12, lambda world, dice: world.do(world.claim())),
    "step": (25, on(idle, World.step, [1, 2, 3], [True, False])),
    "mark sent": (10, on(calling, World.mark_sent)),
    "one result": (10, on(calling, World.one_result)),
    "results": (8, on(stepped, World.results)),
    "park": (12, on(calling, World.park, KINDS)),
    "close calls": (3, on(stepped, World.close_calls)),
    "finish": (6, on(idle, World.finish, ENDINGS)),
    "hand back": (2, on(holders, World.hand_back)),
    "write without a lease": (3, on(lambda world: world.stale, World.stale_write, WRITES)),
    # sweepers
    "lose": (3, on(holders, World.lose)),
    "promote stranded": (2, on(World.stranded, World.promote_stranded)),
    "expire item": (4, on(World.open_items, World.expire_item)),
}


async def walk(world: World, seed: int, steps: int) -> list[str]:
    """Answers what was done; a failure tells the way that led to it."""
    dice = random.Random(seed)
    names = list(ACTIONS)
    weights = [weight for weight, _ in ACTIONS.values()]
    done: list[str] = []
    while len(done) < steps:
        (name,) = dice.choices(names, weights)
        action = ACTIONS[name][1](world, dice)
        if action is None:
            continue
        done.append(name)
        try:
            await action
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, after {' · '.join(done)}: {error}") from error
    return done
