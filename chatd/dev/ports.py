"""Loopback ports that stay free for a service which is killed and comes back."""

import random
import socket
from collections.abc import Awaitable, Callable
from typing import TypeVar

from chatd.dev.children import ChildFailed

T = TypeVar("T")

_BACKLOG = 2048

# Below the range Linux and macOS hand out for outgoing connections. A client that knocks at a
# dead port of that range can be given the very port as its own and connect to itself.
# Ports that are told before they are used are not those that are taken at once.
_TAKEN = range(20_000, 26_000)
_TOLD = range(26_000, 32_000)


def listen(port: int = 0) -> socket.socket:
    """A listening loopback socket; 0 picks a port."""
    return _listening(port) if port else _somewhere(_TAKEN)


def free_port() -> int:
    """A port nobody listens on now; the caller must bear losing it before it is used."""
    with _somewhere(_TOLD) as held:
        return held.getsockname()[1]


async def on_free_port(launch: Callable[[int], Awaitable[T]], port: int = 0) -> T:
    """Launch a server that binds by itself; another port if somebody took the one we found."""
    if port:
        return await launch(port)
    for _ in range(3):
        try:
            return await launch(free_port())
        except ChildFailed as failure:
            if "in use" not in str(failure):
                raise
    return await launch(free_port())


def _somewhere(ports: range) -> socket.socket:
    choice = random.SystemRandom()
    for _ in range(100):
        try:
            return _listening(choice.choice(ports))
        except OSError:
            continue
    return _listening(0)


def _listening(port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        # Else the old connections of a killed server keep its port for a minute.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", port))
        # A port that is only bound can be bound by somebody else as well, with that option.
        bound.listen(_BACKLOG)
    except OSError:
        bound.close()
        raise
    return bound
