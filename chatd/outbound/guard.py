"""Which addresses and URLs this process may dial: pure rules against request forgery (SSRF)."""

from collections.abc import Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

import httpx2

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_CLOSED_V4: tuple[tuple[Network, str], ...] = tuple(
    (ip_network(network), reason)
    for network, reason in (
        ("0.0.0.0/8", "unspecified"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "carrier-grade NAT"),
        ("127.0.0.0/8", "loopback"),
        ("168.63.129.16/32", "cloud metadata"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "documentation"),
        ("192.88.99.0/24", "6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "benchmarking"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
    )
)
"""The special-purpose registry of RFC 6890 and later. Azure's metadata address looks public."""

_CLOSED_V6: tuple[tuple[Network, str], ...] = tuple(
    (ip_network(network), reason)
    for network, reason in (
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("ff00::/8", "multicast"),
        ("2001::/23", "reserved"),
        ("2001:db8::/32", "documentation"),
        ("3fff::/20", "documentation"),
    )
)
_GLOBAL_V6 = IPv6Network("2000::/3")
"""The only part of IPv6 that is handed out for the public Internet."""

_NAT64 = IPv6Network("64:ff9b::/96")
_MAX_ADDRESS_BITS = 0xFFFF_FFFF


def address_refusal(address: Address, allowed: Sequence[Network]) -> str | None:
    """Why the address must not be dialled; None when it may.

    An IPv4-mapped address is the IPv4 one. NAT64 and 6to4 forms stand for the IPv4 address in them,
    but only a network of the allow-list that names the IPv6 form itself opens a closed one.
    """
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if in_networks(address, allowed):
        return None
    if isinstance(address, IPv4Address):
        return _closed(address, _CLOSED_V4)
    embedded = _embedded(address)
    if embedded is not None:
        return _closed(embedded, _CLOSED_V4)
    reason = _closed(address, _CLOSED_V6)
    return reason or (None if address in _GLOBAL_V6 else "reserved")


def in_networks(address: Address, networks: Sequence[Network]) -> bool:
    """An IPv4-mapped address is looked up as the IPv4 one."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in networks)


def parse_address(text: str) -> Address:
    """A resolver's answer, without the zone of a link-local address."""
    return ip_address(text.partition("%")[0])


def url_refusal(url: httpx2.URL) -> str | None:
    """Why no request may go to the URL, whatever its host resolves to; None when it may."""
    if url.scheme not in ("http", "https"):
        return "only http and https are allowed"
    if not url.host:
        return "the URL names no host"
    if url.userinfo:
        return "credentials in a URL are not allowed"
    return None


def _embedded(address: IPv6Address) -> IPv4Address | None:
    if address in _NAT64:
        return IPv4Address(int(address) & _MAX_ADDRESS_BITS)
    return address.sixtofour


def _closed(address: Address, closed: Sequence[tuple[Network, str]]) -> str | None:
    return next((reason for network, reason in closed if address in network), None)
