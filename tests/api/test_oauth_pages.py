"""Pages of a connection, by themselves."""

import pytest

from chatd.api.oauth_pages import consent_page
from chatd.api.session_cookie import origin_of
from chatd.connecting.flows import Asked


@pytest.mark.parametrize(
    ("url", "targets"),
    [
        ("https://sso.example/authorize", "'self' https:"),
        ("http://127.0.0.1:9/authorize", "'self' https: http://127.0.0.1:9"),
        ("http://例え.example/authorize", "'self' https: http://xn--r8jz45g.example"),
        ("http://x;script-src */authorize", "'self' https:"),
    ],
)
def test_no_address_writes_our_policy(url: str, targets: str) -> None:
    asked = Asked("Tickets", "mcp.example", "max", url, ())
    page = consent_page(asked, action="/go", csrf="c", ticket="t")
    directives = page.headers["content-security-policy"].split("; ")
    assert f"form-action {targets}" in directives
    assert not any(each.startswith("script-src") for each in directives)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://Chatd.example:443/tools", "https://chatd.example"),
        ("http://[::1]:80", "http://[::1]"),
        ("https://chatd.example:80/", "https://chatd.example:80"),
    ],
)
def test_our_origin_is_as_browsers_write_it(url: str, origin: str) -> None:
    assert origin_of(url) == origin
