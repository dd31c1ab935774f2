"""WWW-Authenticate, as servers write it."""

import pytest

from chatd.oauth.challenge import MAX_SCOPES, Challenge, parse_challenge, scopes_of

META = "https://mcp.example/.well-known/oauth-protected-resource"

LINES: list[tuple[str, list[str], Challenge]] = [
    ("no header", [], Challenge()),
    ("only a scheme", ["Bearer"], Challenge()),
    (
        "all three, quoted",
        [f'Bearer error="invalid_token", resource_metadata="{META}", scope="a b"'],
        Challenge(META, "a b", "invalid_token"),
    ),
    ("lower case", [f'bearer RESOURCE_METADATA="{META}"'], Challenge(META)),
    ("without quotes", [f"Bearer resource_metadata={META}, scope=a"], Challenge(META, "a")),
    ("spaces around =", [f'Bearer resource_metadata = "{META}"'], Challenge(META)),
    ("no commas", [f'Bearer error="x" resource_metadata="{META}"'], Challenge(META, "", "x")),
    (
        "a comma, an equals sign and quotes in a description",
        [f'Bearer error_description="no, \\"a\\" scope=evil", resource_metadata="{META}"'],
        Challenge(META),
    ),
    (
        "several schemes in one line",
        [f'Basic realm="x, Bearer scope=no", Bearer resource_metadata="{META}", scope="s"'],
        Challenge(META, "s"),
    ),
    (
        "several lines",
        ["Negotiate YII==", 'DPoP algs="ES256"', f'Bearer resource_metadata="{META}"'],
        Challenge(META),
    ),
    (
        "scope and error of another scheme",
        [f'DPoP scope="no", error="no", resource_metadata="{META}"'],
        Challenge(META),
    ),
    (
        "Bearer's own before that of others",
        [f'DPoP resource_metadata="https://other.example/", Bearer resource_metadata="{META}"'],
        Challenge(META),
    ),
    ("two of a name: the first", ['Bearer scope="a", scope="b"'], Challenge("", "a")),
    (
        "an insufficient scope",
        ['Bearer error="insufficient_scope", scope="a b a"'],
        Challenge("", "a b", "insufficient_scope"),
    ),
    (
        "a quote that never ends",
        ['Bearer scope="a", resource_metadata="https://x'],
        Challenge("", "a"),
    ),
    ("an error that is a sentence", ['Bearer error="you sent canary"'], Challenge()),
    ("a scope that is no scope", ['Bearer scope="a \u00e9 b\\""'], Challenge("", "a")),
    ("no scheme at all", [f'resource_metadata="{META}"'], Challenge(META)),
    ("nothing that makes sense", ["=,=;;\x00\"'"], Challenge()),
]


@pytest.mark.parametrize(
    ("lines", "challenge"), [case[1:] for case in LINES], ids=[case[0] for case in LINES]
)
def test_a_challenge_is_read_however_it_is_written(lines: list[str], challenge: Challenge) -> None:
    assert parse_challenge(lines) == challenge


def test_an_endless_header_is_cut_and_takes_no_time() -> None:
    assert parse_challenge(['Bearer a="' + "\\" * 1_000_000]) == Challenge()
    assert parse_challenge(["Bearer " + 'x="1", ' * 100_000 + 'scope="late"']) == Challenge()


def test_scopes_are_words_each_once_and_not_without_end() -> None:
    assert scopes_of(["a", "a", 1, None, "b c", "", "d\n", "e"]) == ("a", "e")
    assert scopes_of("a b") == ()
    assert len(scopes_of([f"s{n}" for n in range(1000)])) == MAX_SCOPES
