"""Resolve a host once, check every address, hand out only checked ones: DNS pinning."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence

import httpx2

from chatd.core.errors import NotDialled
from chatd.outbound.guard import (
    Address,
    Network,
    address_refusal,
    in_networks,
    parse_address,
)


class BlockedAddress(httpx2.ConnectError, NotDialled):
    """Our own rules forbid this address or URL: nothing was sent, and trying again is useless."""


Resolver = Callable[[str, int], Awaitable[tuple[Address, ...]]]
"""All addresses of a host and port, in the order to try them."""


async def resolve(host: str, port: int) -> tuple[Address, ...]:
    """All addresses of the host, in the resolver's order. Raises httpx2.ConnectError.

    The resolver also reads forms such as `0x7f.1`, so what is checked is always its answer.
    """
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpx2.ConnectError(f"cannot resolve host {host!r}") from error
    return tuple(dict.fromkeys(parse_address(str(info[4][0])) for info in found))


def checked(
    host: str, addresses: Sequence[Address], allowed: Sequence[Network], *, plain: bool
) -> tuple[Address, ...]:
    """The addresses when all of them may be dialled, else BlockedAddress.

    One closed address closes the host: an attacker's name often resolves to both kinds. A `plain`
    (unencrypted) connection is only for networks of the allow-list.
    """
    if not addresses:
        raise httpx2.ConnectError(f"host {host!r} has no address")
    for address in addresses:
        reason = address_refusal(address, allowed)
        if reason is not None:
            raise BlockedAddress(f"host {host!r} has a {reason} address, which is not allowed")
        if plain and not in_networks(address, allowed):
            raise BlockedAddress(f"host {host!r} must be reached over https")
    return tuple(addresses)


async def dialable(
    resolver: Resolver, host: str, port: int, allowed: Sequence[Network], *, plain: bool
) -> tuple[Address, ...]:
    """Resolve once and check. Raises httpx2.ConnectError, BlockedAddress."""
    return checked(host, await resolver(host, port), allowed, plain=plain)
