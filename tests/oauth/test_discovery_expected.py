"""Metadata that names another issuer than where it lies, and an administrator who expects that."""

import pytest

from chatd.core.oauth import Discovered
from chatd.oauth.attempts import DiscoveryFailed
from chatd.oauth.discovery import discover
from chatd.oauth.resource import indicator
from tests.oauth.broken import (
    OAUTH,
    OIDC,
    PRM,
    SERVER,
    Page,
    Pages,
    World,
    issuer,
    resource,
    unauthorized,
    world,
)

AS = f"as GET {OAUTH}"
OWN = f"other GET {OAUTH}"
ASKS: Pages = {"mcp POST /mcp": unauthorized(), f"mcp GET {PRM}/mcp": resource()}
ANOTHER: Pages = {**ASKS, AS: issuer("{other}", at="{as}")}
"""Its authorization server says that it is somebody else."""
ANOTHER_OLD: Pages = {
    "mcp POST /mcp": unauthorized(),
    f"mcp GET {OAUTH}": issuer("{other}", at="{mcp}"),
}


async def found(made: World, expected: str) -> Discovered:
    return await discover(made.http, made.fill(SERVER), expected=made.fill(expected))


async def failure(made: World, expected: str = "") -> DiscoveryFailed:
    with pytest.raises(DiscoveryFailed) as failed:
        await found(made, expected)
    return failed.value


TENANT = "{as}/VCeDsk8"
IN_THE_WORLD: dict[str, tuple[Pages, str, str]] = {
    "Atlassian: a tenant that names its host, which is an issuer too": (
        {
            "mcp POST /mcp": unauthorized(),
            f"mcp GET {PRM}/mcp": resource(TENANT),
            f"as GET {OAUTH}/VCeDsk8": issuer("{as}", at=TENANT),
            AS: issuer("{as}", registration_endpoint=None),
        },
        "{as}",
        f"{TENANT}/token",
    ),
    "Slack: metadata of its own for MCP, endpoints at a host that has others for sign-in": (
        {
            "mcp POST /mcp": unauthorized(),
            f"mcp GET {OAUTH}": issuer("{other}", token_endpoint="{other}/api/oauth.v2.user"),
            f"other GET {OIDC}": issuer("{other}", code_challenge_methods_supported=None),
        },
        "{other}",
        "{other}/api/oauth.v2.user",
    ),
    "Meta: names itself, its metadata names a host that only signs people in": (
        {
            "mcp POST /mcp": unauthorized(),
            f"mcp GET {PRM}/mcp": resource("{mcp}/ads"),
            f"mcp GET {OAUTH}/ads": issuer("{other}", token_endpoint="{as}/token"),
            f"other GET {OIDC}": issuer("{other}", token_endpoint=None),
        },
        "{other}",
        "{as}/token",
    ),
}


@pytest.mark.parametrize(("pages", "name", "token"), IN_THE_WORLD.values(), ids=IN_THE_WORLD)
async def test_servers_of_the_world_connect_with_one_more_setting(
    pages: Pages, name: str, token: str
) -> None:
    async with world(pages) as made:
        assert made.fill(f'give "oauth2_issuer": "{name}"') in (await failure(made)).next_step
        issuer = (await found(made, name)).issuer
        assert (issuer.issuer, issuer.token_endpoint) == (made.fill(name), made.fill(token))


@pytest.mark.parametrize("pages", [ANOTHER, ANOTHER_OLD])
async def test_it_counts_once_it_is_expected(pages: Pages) -> None:
    async with world(pages) as made:
        await failure(made)
        issuer = (await found(made, "{other}")).issuer
        assert issuer.issuer == made.fill("{other}")
        place = "{as}" if pages is ANOTHER else "{mcp}"
        assert issuer.token_endpoint == made.fill(f"{place}/token")


async def test_the_next_step_names_the_setting_and_its_value() -> None:
    async with world(ANOTHER) as made:
        failed = await failure(made)
        assert made.fill('give "oauth2_issuer": "{other}"') in failed.next_step
        assert failed.next_step in failed.detail
        assert made.told(failed)[1] == f"{{as}}{OAUTH} its issuer is {{other}}, not {{as}}"


async def test_a_name_that_cannot_be_shown_as_it_is_is_not_offered() -> None:
    async with world({**ASKS, AS: issuer("{other}/?key=canary", at="{as}")}) as made:
        failed = await failure(made)
        assert "of another issuer. Ask" in failed.next_step
        assert "canary" not in failed.detail


@pytest.mark.parametrize(
    "expected", ["{other}/", "{other}/x", "{as}", "*", "https://other.example", "{other}?x=1"]
)
async def test_no_other_name_does(expected: str) -> None:
    async with world(ANOTHER) as made:
        failed = await failure(made, expected)
        assert made.fill('"oauth2_issuer": "{other}"') in failed.next_step


async def test_who_is_not_expected_is_refused_where_it_would_do_else() -> None:
    async with world({**ASKS, AS: issuer()}) as made:
        assert (await found(made, "")).issuer.issuer == made.fill("{as}")
        assert (await found(made, "{as}")).issuer.issuer == made.fill("{as}")
        failed = await failure(made, "{other}")
        assert made.fill('"oauth2_issuer": "{as}"') in failed.next_step


@pytest.mark.parametrize("pages", [ANOTHER, ANOTHER_OLD])
async def test_nobody_speaks_for_an_issuer_that_speaks_for_itself(pages: Pages) -> None:
    async with world({**pages, OWN: issuer("{other}")}) as made:
        endpoints = (await found(made, "{other}")).issuer
        assert endpoints.token_endpoint == made.fill("{other}/token")
        assert endpoints.authorization_endpoint == made.fill("{other}/authorize")


@pytest.mark.parametrize(
    "name",
    [
        "registration_endpoint",
        "revocation_endpoint",
        "jwks_uri",
        "userinfo_endpoint",
        "end_session_endpoint",
    ],
)
async def test_what_another_host_says_of_an_issuer_counts_only_for_its_own_host(name: str) -> None:
    async with world({**ASKS, AS: issuer("{other}", **{name: "{as}/theirs"})}) as made:
        taken = (await found(made, "{other}")).issuer
        assert taken.token_endpoint == made.fill("{other}/token")
        assert getattr(taken, name) == ""
    async with world({**ASKS, AS: issuer("{other}", **{name: "{other}/own"})}) as made:
        assert getattr((await found(made, "{other}")).issuer, name) == made.fill("{other}/own")


@pytest.mark.parametrize(
    "own",
    [
        Page(status=503),
        issuer("{other}", code_challenge_methods_supported=["plain"]),
        issuer("{mcp}", at="{other}"),
    ],
)
async def test_nobody_speaks_for_an_issuer_that_may_only_be_down_or_wants_something_else(
    own: Page,
) -> None:
    async with world({**ANOTHER, OWN: own}) as made:
        await failure(made, "{other}")


async def test_an_issuer_in_a_network_that_is_not_ours_cannot_speak_for_itself() -> None:
    async with world({**ASKS, AS: issuer("http://10.9.8.7:8080", at="{as}")}) as made:
        assert (await found(made, "http://10.9.8.7:8080")).issuer.token_endpoint == made.fill(
            "{as}/token"
        )


async def test_what_is_found_at_another_place_has_to_be_as_safe() -> None:
    inside = issuer("{other}", at="{as}", token_endpoint="http://192.168.1.1/x")
    async with world({**ASKS, AS: inside}) as made:
        assert any(
            "a private address" in line for line in made.told(await failure(made, "{other}"))
        )


async def test_the_conventional_endpoints_have_no_other_name_than_their_host() -> None:
    async with world({"mcp POST /mcp": unauthorized()}) as made:
        for expected in ("", "{mcp}"):
            assert (await failure(made, expected)).conventional is not None
        assert (await failure(made, "{as}")).conventional is None


async def test_every_place_of_its_metadata_is_looked_at() -> None:
    pages = {**ASKS, AS: issuer(), f"as GET {OIDC}": issuer("{other}", at="{as}")}
    async with world(pages) as made:
        assert (await found(made, "{other}")).issuer.issuer == made.fill("{other}")


@pytest.mark.parametrize(
    ("named", "sent", "told"),
    [
        ("", True, "https://mcp.example/mcp"),
        ("api://tickets", True, "api://tickets"),
        ("api://tickets", False, ""),
        ("", False, ""),
    ],
)
def test_what_tokens_are_asked_for(named: str, sent: bool, told: str) -> None:
    assert indicator("https://MCP.example:443/mcp?key=1", named, sent=sent) == told
