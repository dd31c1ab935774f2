"""Every special address in every spelling is refused unless a network of the list opens it."""

from ipaddress import ip_address, ip_network

import httpx2
import pytest

from chatd.outbound.dial import BlockedAddress, checked, resolve
from chatd.outbound.guard import address_refusal, parse_address, url_refusal


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
        "127.255.255.254",
        "168.63.129.16",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.192",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:10::1",
        "2001:db8::1",
        "2002:7f00:1::1",
        "2002:a00:1::",
        "3fff::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ],
)
def test_a_special_address_is_refused(address: str) -> None:
    assert address_refusal(ip_address(address), ()) is not None


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1",
        "100.63.255.255",
        "100.128.0.1",
        "172.15.255.255",
        "172.32.0.1",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
        "2002:808:808::1",
        "2606:4700:4700::1111",
        "2a00:1450::1",
    ],
)
def test_a_public_address_is_not(address: str) -> None:
    assert address_refusal(ip_address(address), ()) is None


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("127.0.0.1", "127.0.0.0/8"),
        ("::ffff:127.0.0.1", "127.0.0.0/8"),
        ("10.1.2.3", "10.1.2.3/32"),
        ("fd12::1", "fd12::/16"),
        ("64:ff9b::a00:1", "64:ff9b::/96"),
    ],
)
def test_the_allow_list_opens_its_networks(address: str, network: str) -> None:
    assert address_refusal(ip_address(address), [ip_network(network)]) is None


def test_the_allow_list_does_not_open_an_address_inside_a_translated_form() -> None:
    loopback = [ip_network("127.0.0.0/8")]
    assert address_refusal(ip_address("64:ff9b::7f00:1"), loopback) is not None
    assert address_refusal(ip_address("2002:7f00:1::1"), loopback) is not None


def test_one_closed_address_closes_the_host() -> None:
    addresses = [ip_address("1.1.1.1"), ip_address("10.0.0.1")]
    with pytest.raises(BlockedAddress, match=r"^host 'mixed\.test' has a private address"):
        checked("mixed.test", addresses, (), plain=False)


def test_a_public_address_needs_https_and_an_allowed_network_does_not() -> None:
    public, inner = [ip_address("1.1.1.1")], [ip_address("10.0.0.1")]
    assert checked("a.test", public, (), plain=False) == tuple(public)
    with pytest.raises(BlockedAddress, match="https"):
        checked("a.test", public, (), plain=True)
    assert checked("b.test", inner, [ip_network("10.0.0.0/8")], plain=True) == tuple(inner)


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f.1", "0177.0.0.1"])
async def test_other_spellings_of_an_address_are_what_they_resolve_to(host: str) -> None:
    assert await resolve(host, 80) == (ip_address("127.0.0.1"),)


async def test_a_host_that_cannot_be_resolved_is_a_failed_connect() -> None:
    for host in ("no-such-host.invalid", "a" * 300):
        with pytest.raises(httpx2.ConnectError):
            await resolve(host, 80)


def test_the_zone_of_a_link_local_address_is_no_way_around() -> None:
    assert address_refusal(parse_address("fe80::1%eth0"), ()) == "link-local"


@pytest.mark.parametrize(
    ("url", "refused"),
    [
        ("https://a.test/x", False),
        ("http://a.test", False),
        ("ftp://a.test/", True),
        ("file:///etc/passwd", True),
        ("https://user@a.test/", True),
        ("https://user:password@a.test/", True),
        ("https:///path", True),
    ],
)
def test_only_http_urls_without_credentials_are_dialled(url: str, refused: bool) -> None:
    assert (url_refusal(httpx2.URL(url)) is not None) == refused
