"""Discovery under attack, and the rules behind it."""

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any

import httpx2
import pytest

from chatd.core.oauth import Issuer
from chatd.oauth.attempts import DiscoveryFailed, Fault, shown
from chatd.oauth.bodies import MAX_BYTES
from chatd.oauth.challenge import Challenge
from chatd.oauth.discovery import Limits, discover, read_issuer
from chatd.oauth.documents import json_object
from chatd.oauth.metadata import metadata_urls, parse_issuer, same_issuer
from chatd.oauth.urls import canonical, covers, is_document_url, parsed
from tests.oauth.broken import (
    OAUTH,
    OIDC,
    PRM,
    Page,
    World,
    challenged,
    issuer,
    redirect,
    resource,
    unauthorized,
    world,
)

ASKS = {"mcp POST /mcp": unauthorized()}
PATH_PRM = f"mcp GET {PRM}/mcp"
AS = f"as GET {OAUTH}"


async def failure_of(made: World, server: str = "{mcp}/mcp", **options: Any) -> DiscoveryFailed:
    with pytest.raises(DiscoveryFailed) as failed:
        await discover(made.http, made.fill(server), **options)
    return failed.value


# --- resource_metadata is the attacker's ---


async def test_metadata_on_another_host_counts_when_it_is_for_this_server() -> None:
    pages = {
        "mcp POST /mcp": challenged("{other}/meta"),
        "other GET /meta": resource(),
        AS: issuer(),
    }
    async with world(pages) as made:
        found = await discover(made.http, made.fill("{mcp}/mcp"))
        assert found.resource == made.fill("{mcp}/mcp")
        assert found.issuer.issuer == made.fill("{as}")


async def test_metadata_on_another_host_for_another_server_is_refused() -> None:
    pages = {
        "mcp POST /mcp": challenged("{other}/meta"),
        "other GET /meta": resource(of="{other}/mcp"),
        AS: issuer(),
    }
    async with world(pages) as made:
        failure = await failure_of(made)
        assert "{other}/meta is for another resource, {other}/mcp" in made.told(failure)
        assert AS not in made.heard
        assert failure.conventional is None


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("http://10.1.2.3/meta", "http://10.1.2.3/meta refused: host '10.1.2.3' has a private"),
        ("http://169.254.169.254/latest", "has a link-local address"),
        ("http://[::ffff:10.0.0.1]/meta", "has a private address"),
        ("http://127.0.0.2:9/meta", "has a loopback address"),
        ("http://192.0.78.9/meta", "must be reached over https"),
        ("https://user:canary@mcp.example/meta", "not an http or https URL without credentials"),
        ("file:///etc/passwd", "not an http or https URL"),
        ("/meta", "/meta not an http or https URL"),
        ("https://mcp.example:99999/meta", "not an http or https URL"),
        ("https://mcp.example:0/meta", "not an http or https URL"),
        ("https://@mcp.example/meta", "not an http or https URL"),
        ("https://evil.example\\.mcp.example/meta", "not an http or https URL"),
        ("https://mcp.example%2fevil.example/meta", "not an http or https URL"),
        ("https://[fe80::1%25eth0]/meta", "not an http or https URL"),
        ("http://127\u30020\u30020\u30022:9/meta", "has a loopback address"),
        ("http://[64:ff9b::a00:1]/meta", "has a private address"),
        ("https://[::1", "(not a URL) not an http or https URL"),
    ],
)
async def test_metadata_that_points_inside_is_not_fetched(place: str, told: str) -> None:
    async with world(ASKS) as made:
        failure = await failure_of(made, challenge=Challenge(place))
        assert told in made.told(failure)[0]
        assert "canary" not in failure.detail


@pytest.mark.parametrize("target", ["{other}/mcp", "//10.0.0.1/", "file:///x", "{mcp}/mcp"])
async def test_a_server_that_moves_away_or_in_circles_is_not_followed(target: str) -> None:
    pages = {"mcp POST /mcp": Page(status=308, headers=f"location: {target}\r\n")}
    async with world(pages) as made:
        failure = await failure_of(made)
        assert "not followed" in made.told(failure)[0]
        assert not [heard for heard in made.heard if heard.startswith("other")]
        assert made.heard.count("mcp POST /mcp") <= 3


@pytest.mark.parametrize(
    "name", ["http://169.254.169.254", "http://10.0.0.1/as", "http://127.0.0.2:9"]
)
async def test_an_authorization_server_inside_is_not_asked(name: str) -> None:
    async with world({**ASKS, PATH_PRM: resource(name)}) as made:
        failure = await failure_of(made)
        assert "blocked" in {attempt.problem for attempt in failure.attempts}
        assert "CHATD_MCP_ALLOWED_CIDRS" in failure.next_step


@pytest.mark.parametrize(
    "target", ["http://10.0.0.1/", "http://127.0.0.2:9/x", "file:///x", "//evil.example/"]
)
async def test_a_redirect_inside_is_not_followed(target: str) -> None:
    async with world({**ASKS, PATH_PRM: resource(), AS: redirect(target)}) as made:
        failure = await failure_of(made)
        assert any(f"{{as}}{OAUTH} redirects to" in line for line in made.told(failure))


@pytest.mark.parametrize(
    "member", ["authorization_endpoint", "token_endpoint", "registration_endpoint"]
)
async def test_an_endpoint_inside_spoils_the_metadata(member: str) -> None:
    pages = {**ASKS, PATH_PRM: resource(), AS: issuer(**{member: "http://192.168.1.1/x"})}
    async with world(pages) as made:
        failure = await failure_of(made)
        assert any("has a private address" in line for line in made.told(failure))


async def test_an_endpoint_inside_spoils_the_metadata_of_an_old_server_too() -> None:
    pages = {**ASKS, f"mcp GET {OAUTH}": issuer("{mcp}", token_endpoint="http://192.168.1.1/x")}
    async with world(pages) as made:
        failure = await failure_of(made)
        assert any("has a private address" in line for line in made.told(failure))


@pytest.mark.parametrize("name", ["{as}?x=1", "{as}#x", "as.example", "", "ftp://as.example"])
async def test_an_issuer_that_is_no_plain_url_is_not_asked(name: str) -> None:
    async with world({AS: issuer(name)}) as made:
        with pytest.raises(DiscoveryFailed) as failed:
            await read_issuer(made.http, made.fill(name))
        assert failed.value.attempts[0].found == "not the name of an issuer"
        assert made.heard == []


async def test_an_endpoint_on_another_host_is_only_looked_at() -> None:
    pages = {**ASKS, PATH_PRM: resource(), AS: issuer(at="{other}")}
    async with world(pages) as made:
        await discover(made.http, made.fill("{mcp}/mcp"))
        assert [heard for heard in made.heard if heard.startswith("other")] == [
            "other HEAD /authorize"
        ]


# --- size ---


class Endless(httpx2.AsyncByteStream):
    """A body that never ends, behind a client that does not mind."""

    read = 0

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        while True:
            self.read += 4096
            yield b" " * 4096


async def test_a_document_is_capped_whatever_the_client_lets_through() -> None:
    stream = Endless()
    with pytest.raises(httpx2.RemoteProtocolError):
        await json_object(httpx2.Response(200, stream=stream))
    assert stream.read <= MAX_BYTES + 4096


# --- time ---


async def test_a_server_that_never_finishes_its_answer_is_left() -> None:
    pages = {**ASKS, PATH_PRM: resource(), AS: Page(body=b'{"issuer":', hangs=True)}
    async with world(pages) as made:
        failure = await failure_of(made, limits=Limits(request_s=0.1, total_s=5))
        assert f"{{as}}{OAUTH} no answer in time" in made.told(failure)


async def test_the_whole_search_has_one_deadline() -> None:
    pages = {
        **ASKS,
        PATH_PRM: resource("{as}", "{other}"),
        AS: Page(hangs=True),
        f"other GET {OAUTH}": Page(hangs=True),
    }
    async with world(pages) as made:
        start = time.monotonic()
        failure = await failure_of(made, limits=Limits(request_s=0.2, total_s=0.3))
        assert time.monotonic() - start < 2
        late = f"{{other}}{OAUTH} no answer before the time for all was over"
        assert made.told(failure)[-1] == late


async def test_cancelling_a_search_is_not_a_failed_search() -> None:
    async with world({"mcp POST /mcp": Page(hangs=True)}) as made:
        task = asyncio.create_task(discover(made.http, made.fill("{mcp}/mcp")))
        await made.hanging.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


# --- what is asked, and what is told ---


async def test_a_challenge_that_was_met_already_is_not_asked_for_again() -> None:
    pages = {"other GET /meta": resource(scopes_supported=["no"]), AS: issuer()}
    async with world(pages) as made:
        challenge = Challenge(made.fill("{other}/meta"), scope="a b")
        found = await discover(made.http, made.fill("{mcp}/mcp"), challenge=challenge)
        assert found.scopes == ("a", "b")
        assert made.heard == ["other GET /meta", AS]


async def test_a_key_in_the_configured_url_is_shown_nowhere() -> None:
    async with world({"mcp POST /mcp?key=canary": unauthorized()}) as made:
        failure = await failure_of(made, "{mcp}/mcp?key=canary")
        assert made.told(failure)[0] == "{mcp}/mcp POST: HTTP 401"
        assert "canary" not in f"{failure.detail} {failure.extra}"
        assert all("canary" not in heard for heard in made.heard[1:])


async def test_a_search_that_ends_at_the_server_itself_says_so() -> None:
    async with world({"mcp POST /mcp": Page(hangs=True)}) as made:
        failure = await failure_of(made, limits=Limits(request_s=1, total_s=0.1))
        assert made.told(failure) == ["{mcp}/mcp no answer before the time for all was over"]


async def test_a_slash_at_the_end_of_the_path_may_be_missing_in_the_place_of_the_metadata() -> None:
    pages = {"mcp POST /mcp/": unauthorized(), PATH_PRM: resource(of="{mcp}/mcp/"), AS: issuer()}
    async with world(pages) as made:
        found = await discover(made.http, made.fill("{mcp}/mcp/"))
        assert found.resource == made.fill("{mcp}/mcp/")
        assert made.heard[1:3] == [f"mcp GET {PRM}/mcp/", PATH_PRM]


async def test_more_than_a_handful_of_authorization_servers_are_not_asked() -> None:
    names = [f"{{as}}/{n}" for n in range(50)]
    async with world({**ASKS, PATH_PRM: resource(*names)}) as made:
        await failure_of(made)
        assert len([heard for heard in made.heard if heard.startswith("as")]) == 15


async def test_a_server_that_publishes_nothing_may_have_the_endpoints_of_2025_03_26() -> None:
    async with world(ASKS) as made:
        failure = await failure_of(made)
        assert failure.conventional == Issuer(
            issuer=made.fill("{mcp}"),
            authorization_endpoint=made.fill("{mcp}/authorize"),
            token_endpoint=made.fill("{mcp}/token"),
            registration_endpoint=made.fill("{mcp}/register"),
        )


@pytest.mark.parametrize(
    "pages",
    [
        {},
        {"mcp POST /mcp": Page(status=200)},
        {**ASKS, PATH_PRM: Page(status=500)},
        {**ASKS, f"mcp GET {OAUTH}": Page(status=500)},
        {**ASKS, PATH_PRM: resource("{as}")},
        {**ASKS, f"mcp GET {OAUTH}": issuer("{mcp}", code_challenge_methods_supported=None)},
    ],
    ids=["no login", "open", "outage", "outage of metadata", "no issuer", "no PKCE"],
)
async def test_but_not_one_that_publishes_something(pages: dict[str, Page]) -> None:
    async with world(pages) as made:
        assert (await failure_of(made)).conventional is None


async def test_a_wrong_url_is_told_without_a_request() -> None:
    async with world({}) as made:
        failure = await failure_of(made, "ftp://mcp.example/canary?canary=1")
        assert [attempt.url for attempt in failure.attempts] == ["ftp://mcp.example/canary"]
        assert made.heard == []


async def test_the_issuer_of_a_login_need_not_announce_pkce() -> None:
    login = issuer(
        code_challenge_methods_supported=None,
        registration_endpoint=None,
        jwks_uri="{as}/keys",
        userinfo_endpoint="{as}/me",
        end_session_endpoint="javascript:alert(1)",
        scopes_supported=["openid"],
        id_token_signing_alg_values_supported=["RS256"],
        authorization_response_iss_parameter_supported=True,
    )
    async with world({f"as GET {OIDC}": login}) as made:
        found = await read_issuer(made.http, made.fill("{as}"), requires_pkce=False)
        assert found == Issuer(
            issuer=made.fill("{as}"),
            authorization_endpoint=made.fill("{as}/authorize"),
            token_endpoint=made.fill("{as}/token"),
            jwks_uri=made.fill("{as}/keys"),
            userinfo_endpoint=made.fill("{as}/me"),
            scopes_supported=("openid",),
            signing_algorithms=("RS256",),
            sends_issuer=True,
        )
        with pytest.raises(DiscoveryFailed):
            await read_issuer(made.http, made.fill("{as}"))


# --- the rules, without a network ---

GOOD: dict[str, Any] = {
    "issuer": "https://as.example",
    "authorization_endpoint": "https://as.example/a?tenant=1",
    "token_endpoint": "https://as.example/t",
    "code_challenge_methods_supported": ["plain", "S256"],
}
HTTPS, HTTP = httpx2.URL("https://as.example/x"), httpx2.URL("http://as.example/x")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"token_endpoint": "http://as.example/t"}, "endpoint"),
        ({"authorization_endpoint": "http://as.example/a"}, "endpoint"),
        ({"registration_endpoint": "http://as.example/r"}, "endpoint"),
        ({"token_endpoint": "https://u:p@as.example/t"}, "endpoint"),
        ({"token_endpoint": "https://as.example/t#f"}, "endpoint"),
        ({"token_endpoint": "https://as.example/t\n"}, "endpoint"),
        ({"token_endpoint": "https://as\u3002example/t"}, "endpoint"),
        ({"token_endpoint": ["https://as.example/t"]}, "endpoint"),
        ({"token_endpoint": None}, "invalid"),
        ({"issuer": None}, "invalid"),
        ({"issuer": "https://as.example/x"}, "issuer"),
        ({"issuer": "HTTPS://as.example"}, "issuer"),
        ({"issuer": "https://as.example:443"}, "issuer"),
        ({"code_challenge_methods_supported": "S256"}, "pkce"),
        ({"code_challenge_methods_supported": ["s256"]}, "pkce"),
    ],
)
def test_metadata_that_is_of_no_use(changes: dict[str, Any], problem: str) -> None:
    found = parse_issuer({**GOOD, **changes}, HTTPS, asked="https://as.example")
    assert isinstance(found, Fault)
    assert found.problem == problem


def test_an_optional_endpoint_that_is_of_no_use_is_left_out() -> None:
    changes = {"revocation_endpoint": "http://as.example/r", "jwks_uri": 7}
    found = parse_issuer({**GOOD, **changes}, HTTPS, asked="https://as.example")
    assert isinstance(found, Issuer)
    assert (found.revocation_endpoint, found.jwks_uri) == ("", "")


def test_plain_http_is_for_metadata_that_came_so() -> None:
    changes = {"token_endpoint": "http://as.example/t"}
    found = parse_issuer({**GOOD, **changes}, HTTP, asked="https://as.example")
    assert isinstance(found, Issuer)


@pytest.mark.parametrize(
    ("said", "asked", "same"),
    [
        ("https://as.example", "https://as.example", True),
        ("https://as.example/", "https://as.example", True),
        ("https://as.example", "https://as.example/", True),
        ("https://as.example/t/", "https://as.example/t", False),
        ("https://as.example/T", "https://as.example/t", False),
        ("https://as.example/%74", "https://as.example/t", False),
        ("https://as.example:443", "https://as.example", False),
        ("https://as.example/?x", "https://as.example", False),
    ],
)
def test_issuers_are_the_same_only_letter_by_letter(said: str, asked: str, same: bool) -> None:
    assert same_issuer(said, asked) is same


@pytest.mark.parametrize(
    ("name", "urls"),
    [
        ("https://as.example", [f"https://as.example{OAUTH}", f"https://as.example{OIDC}"]),
        ("https://as.example:443/", [f"https://as.example{OAUTH}", f"https://as.example{OIDC}"]),
        (
            "https://as.example:8443/a/b/",
            [
                f"https://as.example:8443{OAUTH}/a/b",
                f"https://as.example:8443{OIDC}/a/b",
                f"https://as.example:8443/a/b{OIDC}",
            ],
        ),
        (
            "https://[2606:4700::1]",
            [f"https://[2606:4700::1]{OAUTH}", f"https://[2606:4700::1]{OIDC}"],
        ),
    ],
)
def test_where_metadata_of_an_issuer_is(name: str, urls: list[str]) -> None:
    assert list(metadata_urls(httpx2.URL(name))) == urls


@pytest.mark.parametrize(
    ("of", "server", "covered"),
    [
        ("https://mcp.example/mcp", "https://mcp.example/mcp", True),
        ("https://mcp.example/mcp/", "https://mcp.example/mcp", True),
        ("https://mcp.example/mcp", "https://mcp.example/mcp/", True),
        ("https://mcp.example", "https://mcp.example/a/b", True),
        ("https://MCP.example:443/a", "https://mcp.example/a/b", True),
        ("https://mcp.example/mcp", "https://mcp.example/mcp?key=1", True),
        ("https://mcp.example/mcp?key=1", "https://mcp.example/mcp?key=1", True),
        ("https://mcp.example/mcp?key=2", "https://mcp.example/mcp?key=1", False),
        ("https://mcp.example/mc", "https://mcp.example/mcp", False),
        ("https://mcp.example/mcp/more", "https://mcp.example/mcp", False),
        ("http://mcp.example/mcp", "https://mcp.example/mcp", False),
        ("https://mcp.example:8443/", "https://mcp.example/mcp", False),
        ("https://mcp.example.evil.example/", "https://mcp.example/mcp", False),
        ("https://mcp.example@evil.example/", "https://mcp.example/mcp", False),
        ("https://mcp.example/mcp#x", "https://mcp.example/mcp", False),
        ("https://mcp.example/mcp#", "https://mcp.example/mcp", False),
        ("https://mcp.example/a", "https://mcp.example/a/%2e%2E/b", False),
        ("urn:mcp", "https://mcp.example/mcp", False),
        (None, "https://mcp.example/mcp", False),
    ],
)
def test_a_resource_covers_itself_and_what_is_below(of: object, server: str, covered: bool) -> None:
    assert covers(of, httpx2.URL(server)) is covered


def test_a_server_without_metadata_is_named_without_its_query() -> None:
    assert canonical(httpx2.URL("HTTPS://Mcp.Example:443/?key=1")) == "https://mcp.example"
    assert canonical(httpx2.URL("http://mcp.example:81/A/?key=1#x")) == "http://mcp.example:81/A/"


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("https://chat.example/oauth/client.json", True),
        ("https://chat.example/", False),
        ("https://chat.example", False),
        ("http://chat.example/client.json", False),
        ("https://localhost/client.json", False),
        ("https://chat.example/a/../client.json", False),
        ("https://chat.example/client.json#x", False),
        ("https://u@chat.example/client.json", False),
        ("", False),
    ],
)
def test_which_urls_may_be_a_client_id(url: str, good: bool) -> None:
    assert is_document_url(url) is good


def test_urls_are_shown_without_what_may_be_secret() -> None:
    assert shown("https://u:canary@as.example/a?canary=1#canary") == "https://as.example/a"
    assert len(shown("https://as.example/" + "a" * 1000)) == 200
    assert parsed("https://as.example/a b") is None
