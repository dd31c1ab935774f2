"""Pages of a connection, by themselves."""

import re

import pytest

from chatd.api.oauth_pages import busy_page, consent_page, trouble_page
from chatd.api.session_cookie import origin_of
from chatd.connecting.flows import Asked
from chatd.core.errors import TooMany


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
    asked = Asked("Tickets", "mcp.example", "max", url, url, ())
    page = consent_page(asked, action="/go", csrf="c", ticket="t")
    directives = page.headers["content-security-policy"].split("; ")
    assert f"form-action {targets}" in directives
    assert not any(each.startswith("script-src") for each in directives)


@pytest.mark.parametrize(
    ("token_url", "shown"),
    [
        ("https://sso.example/token", False),
        ("https://SSO.example/token", False),
        ("https://tokens.example/x", True),
    ],
)
def test_who_hands_out_access_is_named_where_it_is_not_who_signs_in(
    token_url: str, *, shown: bool
) -> None:
    asked = Asked("Tickets", "mcp.example", "max", "https://sso.example/a", token_url, ())
    page = bytes(consent_page(asked, action="/go", csrf="c", ticket="t").body).decode()
    assert ("<dt>Access is handed out by</dt>" in page) is shown
    assert ("<dd>tokens.example</dd>" in page) is shown


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


def luminance(colour: str) -> float:
    """As WCAG 2 defines it."""
    full = "".join(2 * digit for digit in colour) if len(colour) == 3 else colour
    parts = [int(full[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_and_links_can_be_read_by_day_and_by_night(scheme: str) -> None:
    page = bytes(trouble_page(400, "x", "y", back="/z").body).decode()
    by_day, _, by_night = page.partition("@media (prefers-color-scheme:dark)")
    rules = by_day if scheme == "light" else by_night
    ground = re.search(r"body\{[^}]*background:#(\w+)", rules, re.DOTALL)
    assert ground is not None
    for what in ("body", "dt", "a"):
        colour = re.search(rf"\b{what}\{{[^}}]*?\bcolor:#(\w+)", rules, re.DOTALL)
        assert colour is not None, what
        assert contrast(colour[1], ground[1]) >= 4.5, what


def test_who_comes_too_often_is_told_when_to_come_back() -> None:
    page = busy_page(TooMany("x", headers={"Retry-After": "7"}))
    assert (page.status_code, page.headers["retry-after"]) == (429, "7")
    assert page.headers["cache-control"] == "no-store"
