"""Servers as they are in the world: each connects, or says URL by URL what is wrong with it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest

from chatd.core.oauth import AuthMethod, Client, ClientSource, Discovered
from chatd.oauth.attempts import Attempted, DiscoveryFailed, RegistrationFailed
from chatd.oauth.discovery import Limits, discover
from chatd.oauth.registration import choose_client
from tests.oauth.broken import (
    OAUTH,
    OIDC,
    PRM,
    SERVER,
    Page,
    Pages,
    World,
    challenged,
    issuer,
    redirect,
    resource,
    unauthorized,
    world,
)

CALLBACK = "https://chat.example/api/experimental/mcp/servers/1/oauth2/callback"
DOCUMENT = "https://chat.example/oauth/client.json"
QUICK = Limits(request_s=0.15, total_s=1.5)

PATH_PRM = f"mcp GET {PRM}/mcp"
ROOT_PRM = f"mcp GET {PRM}"
AS = f"as GET {OAUTH}"
REGISTER = "as POST /register"
PUBLIC = Page({"client_id": "c1", "token_endpoint_auth_method": "none"}, status=201)
CONFIDENTIAL = Page(
    {
        "client_id": "c2",
        "client_secret": "canary-secret",
        "token_endpoint_auth_method": "client_secret_post",
    },
    status=201,
)
ASKS: Pages = {"mcp POST /mcp": unauthorized()}
REFUSES_PRM: Pages = {**ASKS, PATH_PRM: resource()}
ANNOUNCES: Pages = {**REFUSES_PRM, AS: issuer()}


@dataclass(frozen=True)
class Works:
    name: str
    pages: Pages
    server: str = SERVER
    issuer: str = "{as}"
    resource: str = SERVER
    scopes: tuple[str, ...] = ()
    method: AuthMethod = "none"
    client_id: str = "c1"
    source: ClientSource = "registered"
    token_endpoint: str = ""


@dataclass(frozen=True)
class Fails:
    name: str
    pages: Pages
    told: Sequence[str]
    """Every line: URL and finding."""
    next_step: str
    """A part of it."""
    server: str = SERVER


GITHUB = {
    "mcp POST /mcp/": challenged(f"{{mcp}}{PRM}/mcp/"),
    f"mcp GET {PRM}/mcp/": resource(
        "{as}/login/oauth", of="{mcp}/mcp/", scopes_supported=["repo", "read:org"]
    ),
    f"as GET {OAUTH}/login/oauth": issuer("{as}/login/oauth", registration_endpoint=None),
}

WORKING = (
    Works(
        "Linear: lower-case bearer, without quotes",
        {
            **ASKS,
            "mcp POST /mcp": unauthorized(f"bearer resource_metadata={{mcp}}{PRM}/mcp"),
            PATH_PRM: resource(),
            AS: issuer(),
            REGISTER: PUBLIC,
        },
    ),
    Works(
        "Notion: its own authorization server at the root, metadata of the path",
        {
            "mcp POST /mcp": challenged(f"{{mcp}}{PRM}/mcp"),
            PATH_PRM: resource("{mcp}"),
            f"mcp GET {OAUTH}": issuer("{mcp}"),
            "mcp POST /register": PUBLIC,
        },
        issuer="{mcp}",
    ),
    Works(
        "Vercel: announces public clients and refuses them",
        {
            **REFUSES_PRM,
            AS: issuer(token_endpoint_auth_methods_supported=["none"]),
            f"{REGISTER} none": Page({"error": "invalid_redirect_uri"}, status=400),
            f"{REGISTER} client_secret_post": CONFIDENTIAL,
        },
        method="client_secret_post",
        client_id="c2",
    ),
    Works(
        "Keycloak: an issuer with a path, only at OpenID Connect's own place",
        {
            **ASKS,
            PATH_PRM: resource("{as}/realms/acme"),
            f"as GET /realms/acme{OIDC}": issuer("{as}/realms/acme"),
            "as POST /realms/acme/register": PUBLIC,
        },
        issuer="{as}/realms/acme",
    ),
    Works(
        "an issuer with a path, as RFC 8414 says",
        {
            **ASKS,
            PATH_PRM: resource("{as}/tenant/1"),
            f"as GET {OAUTH}/tenant/1": issuer("{as}/tenant/1"),
            "as POST /tenant/1/register": PUBLIC,
        },
        issuer="{as}/tenant/1",
    ),
    Works(
        "an issuer with a path, OpenID Connect's document before the path",
        {
            **ASKS,
            PATH_PRM: resource("{as}/tenant/1"),
            f"as GET {OIDC}/tenant/1": issuer("{as}/tenant/1"),
            "as POST /tenant/1/register": PUBLIC,
        },
        issuer="{as}/tenant/1",
    ),
    Works(
        "Atlassian: no resource metadata, the origin names another host, which vouches for itself",
        {
            **ASKS,
            f"mcp GET {OAUTH}": issuer("{as}/cf", at="{other}"),
            f"as GET {OAUTH}/cf": issuer("{as}/cf"),
            "as POST /cf/register": PUBLIC,
        },
        issuer="{as}/cf",
    ),
    Works(
        "Auth0: an issuer that ends in a slash",
        {**ASKS, PATH_PRM: resource("{as}/"), AS: issuer("{as}/"), REGISTER: PUBLIC},
        issuer="{as}/",
    ),
    Works(
        "FastMCP before AuthKit: a slash that only the resource metadata adds",
        {**ASKS, PATH_PRM: resource("{as}/"), AS: issuer("{as}"), REGISTER: PUBLIC},
    ),
    Works(
        "resource metadata only at the root",
        {**ASKS, ROOT_PRM: resource(), AS: issuer(), REGISTER: PUBLIC},
    ),
    Works(
        "resource metadata only at the path, with scopes",
        {
            **ASKS,
            PATH_PRM: resource(scopes_supported=["read", "write"]),
            AS: issuer(),
            REGISTER: PUBLIC,
        },
        scopes=("read", "write"),
    ),
    Works(
        "resource metadata somewhere else, with scopes in the challenge",
        {
            "mcp POST /mcp": unauthorized(
                'Bearer resource_metadata="{mcp}/meta?v=1", scope="tools:call"'
            ),
            "mcp GET /meta?v=1": resource(scopes_supported=["everything"]),
            AS: issuer(),
            REGISTER: PUBLIC,
        },
        scopes=("tools:call",),
    ),
    Works(
        "the challenge only at GET: the older transport",
        {
            "mcp POST /sse": Page(status=405),
            "mcp GET /sse": challenged("{mcp}/meta"),
            "mcp GET /meta": resource(of="{mcp}/sse"),
            AS: issuer(),
            REGISTER: PUBLIC,
        },
        server="{mcp}/sse",
        resource="{mcp}/sse",
    ),
    Works(
        "the resource is the parent of the server's URL",
        {**ASKS, ROOT_PRM: resource(of="{mcp}"), AS: issuer(), REGISTER: PUBLIC},
        resource="{mcp}",
    ),
    Works(
        "two authorization servers, the first dead",
        {
            **ASKS,
            PATH_PRM: resource("http://127.0.0.1:1", "{as}"),
            AS: issuer(),
            REGISTER: PUBLIC,
        },
    ),
    Works(
        "two authorization servers, the first hanging",
        {
            **ASKS,
            PATH_PRM: resource("{other}", "{as}"),
            f"other GET {OAUTH}": Page(hangs=True),
            AS: issuer(),
            REGISTER: PUBLIC,
        },
    ),
    Works(
        "Okta: metadata only as openid-configuration",
        {**ASKS, PATH_PRM: resource(), f"as GET {OIDC}": issuer(), REGISTER: PUBLIC},
    ),
    Works(
        "2025-03-26: no resource metadata, metadata at the origin",
        {
            **ASKS,
            f"mcp GET {OAUTH}": issuer("{mcp}"),
            "mcp POST /register": PUBLIC,
        },
        issuer="{mcp}",
    ),
    Works(
        "2025-03-26: the origin's metadata says it is an issuer with a path",
        {
            **ASKS,
            f"mcp GET {OAUTH}": issuer("{mcp}/oauth"),
            "mcp POST /oauth/register": PUBLIC,
        },
        issuer="{mcp}/oauth",
    ),
    Works(
        "a redirect that only adds a slash",
        {
            **ASKS,
            PATH_PRM: redirect(f"{PRM}/mcp/"),
            f"mcp GET {PRM}/mcp/": resource(),
            AS: issuer(),
            REGISTER: PUBLIC,
        },
    ),
    Works(
        "a server that moves by a slash, and names its metadata only there",
        {
            "mcp POST /mcp": Page(status=307, headers="location: /mcp/\r\n"),
            "mcp POST /mcp/": challenged("{mcp}/meta"),
            "mcp GET /meta": resource(of="{mcp}/mcp/"),
            AS: issuer(),
            REGISTER: PUBLIC,
        },
        resource="{mcp}/mcp/",
    ),
    Works(
        "a server that takes client id metadata documents",
        {**REFUSES_PRM, AS: issuer(client_id_metadata_document_supported=True)},
        client_id=DOCUMENT,
        source="metadata_document",
    ),
    Works(
        "registration answers 200 and no method",
        {**ANNOUNCES, REGISTER: Page({"client_id": "c1"}, status=200)},
    ),
    Works(
        "registration makes a confidential client of us",
        {**ANNOUNCES, REGISTER: CONFIDENTIAL},
        method="client_secret_post",
        client_id="c2",
    ),
    Works(
        "endpoints on another host than the issuer's",
        {
            **REFUSES_PRM,
            AS: issuer(at="{other}"),
            "other POST /register": PUBLIC,
        },
        token_endpoint="{other}/token",
    ),
)

NO_PRM = [
    "{mcp}/mcp POST: HTTP 401",
    f"{{mcp}}{PRM}/mcp HTTP 404",
    f"{{mcp}}{PRM} HTTP 404",
]
NO_METADATA = [*NO_PRM, f"{{mcp}}{OAUTH} HTTP 404", f"{{mcp}}{OIDC} HTTP 404"]
ASKED = "{mcp}/mcp POST: HTTP 401"

FAILING = (
    Fails(
        "GitHub: registers no clients",
        GITHUB,
        ["{as}/login/oauth has no registration_endpoint"],
        "registers no clients by itself. Register an application at {as}/login/oauth with the "
        f"redirect URI {CALLBACK} and give oauth2_client_id",
        server="{mcp}/mcp/",
    ),
    Fails(
        "Entra: OpenID Connect without code_challenge_methods_supported",
        {
            **REFUSES_PRM,
            f"as GET {OIDC}": issuer(code_challenge_methods_supported=None),
        },
        [ASKED, f"{{as}}{OAUTH} HTTP 404", f"{{as}}{OIDC} does not announce PKCE with S256"],
        "does not announce PKCE with S256",
    ),
    Fails(
        "only the plain method of PKCE",
        {**REFUSES_PRM, AS: issuer(code_challenge_methods_supported=["plain"])},
        [ASKED, f"{{as}}{OAUTH} does not announce PKCE with S256", f"{{as}}{OIDC} HTTP 404"],
        "does not announce PKCE with S256",
    ),
    Fails(
        "metadata of another issuer",
        {**REFUSES_PRM, AS: issuer("{other}")},
        [ASKED, f"{{as}}{OAUTH} its issuer is {{other}}, not {{as}}", f"{{as}}{OIDC} HTTP 404"],
        "metadata is of another issuer",
    ),
    Fails(
        "an issuer with a path and one slash too many",
        {
            **ASKS,
            PATH_PRM: resource("{as}/t/"),
            f"as GET {OAUTH}/t": issuer("{as}/t"),
        },
        [
            ASKED,
            f"{{as}}{OAUTH}/t its issuer is {{as}}/t, not {{as}}/t/",
            f"{{as}}{OIDC}/t HTTP 404",
            f"{{as}}/t{OIDC} HTTP 404",
        ],
        "metadata is of another issuer",
    ),
    Fails(
        "resource metadata for another server",
        {**ASKS, PATH_PRM: resource(of="{mcp}/mcp2"), AS: issuer()},
        [
            ASKED,
            f"{{mcp}}{PRM}/mcp is for another resource, {{mcp}}/mcp2",
            f"{{mcp}}{PRM} HTTP 404",
        ],
        "Use the URL that the metadata names",
    ),
    Fails("no metadata at all", ASKS, NO_METADATA, "publishes no metadata"),
    Fails(
        "no login at all",
        {"mcp POST /mcp": Page({"jsonrpc": "2.0"})},
        ["{mcp}/mcp POST: HTTP 200", *NO_METADATA[1:]],
        "auth_type none may do",
    ),
    Fails(
        "an outage is not taken for a server of 2025-03-26",
        {**ASKS, PATH_PRM: Page(status=503), f"mcp GET {OAUTH}": issuer("{mcp}")},
        [ASKED, f"{{mcp}}{PRM}/mcp HTTP 503", f"{{mcp}}{PRM} HTTP 404"],
        "whether the server is up",
    ),
    Fails(
        "metadata that redirects to another origin",
        {
            **REFUSES_PRM,
            AS: redirect(f"{{other}}{OAUTH}?state=canary-secret"),
            f"other GET {OAUTH}": issuer("{as}"),
        },
        [
            ASKED,
            f"{{as}}{OAUTH} redirects to {{other}}: not followed",
            f"{{as}}{OIDC} HTTP 404",
        ],
        "It redirects to another host",
    ),
    Fails(
        "metadata that redirects forever",
        {**REFUSES_PRM, AS: redirect(OAUTH)},
        [ASKED, f"{{as}}{OAUTH} redirects more than 2 times", f"{{as}}{OIDC} HTTP 404"],
        "It redirects",
    ),
    Fails(
        "a login page for everything",
        {
            **ASKS,
            **{
                f"mcp GET {place}": Page(
                    body=b"<html>canary-secret</html>", headers="content-type: text/html\r\n"
                )
                for place in (f"{PRM}/mcp", PRM, OAUTH, OIDC)
            },
        },
        [
            ASKED,
            *(
                f"{{mcp}}{place} HTTP 200 with a web page, not JSON"
                for place in (f"{PRM}/mcp", PRM, OAUTH, OIDC)
            ),
        ],
        "publishes no metadata",
    ),
    Fails(
        "metadata that is a list, or not JSON",
        {
            **REFUSES_PRM,
            AS: Page([1]),
            f"as GET {OIDC}": Page(body=b"canary-secret"),
        },
        [
            ASKED,
            f"{{as}}{OAUTH} HTTP 200 but no JSON object",
            f"{{as}}{OIDC} HTTP 200 but no JSON object",
        ],
        "publishes no metadata",
    ),
    Fails(
        "a body of 10 MB",
        {**REFUSES_PRM, AS: Page(body=b"canary-secret" * 800_000)},
        [
            ASKED,
            f"{{as}}{OAUTH} an answer that is broken or too large",
            f"{{as}}{OIDC} HTTP 404",
        ],
        "Check the URL",
    ),
    Fails(
        "a server that hangs is asked once",
        {**REFUSES_PRM, AS: Page(hangs=True)},
        [
            ASKED,
            f"{{as}}{OAUTH} no answer in time",
            f"{{as}}{OIDC} not asked: its host could not be reached before",
        ],
        "Check the URL",
    ),
    Fails(
        "an endless stream for every GET",
        {
            **REFUSES_PRM,
            AS: Page(hangs=True, body=b": hi\n\n", headers="content-type: text/event-stream\r\n"),
        },
        [ASKED, f"{{as}}{OAUTH} HTTP 200 but no JSON object", f"{{as}}{OIDC} HTTP 404"],
        "publishes no metadata",
    ),
    Fails(
        "an endpoint at a private address",
        {**REFUSES_PRM, AS: issuer(token_endpoint="http://10.0.0.1/token")},
        [
            ASKED,
            "http://10.0.0.1/token refused: host '10.0.0.1' has a private address, which is not "
            "allowed",
            f"{{as}}{OIDC} HTTP 404",
        ],
        "CHATD_MCP_ALLOWED_CIDRS",
    ),
    Fails(
        "an endpoint that is no web address",
        {**REFUSES_PRM, AS: issuer(authorization_endpoint="javascript:alert(1)")},
        [
            ASKED,
            f"{{as}}{OAUTH} its authorization_endpoint is not an https URL",
            f"{{as}}{OIDC} HTTP 404",
        ],
        "correct its endpoints",
    ),
    Fails(
        "registration is for known partners",
        {**ANNOUNCES, REGISTER: Page({"error": "access_denied"}, status=403)},
        [
            "{as}/register as none: HTTP 403 access_denied",
            "{as}/register as client_secret_post: HTTP 403 access_denied",
            "{as}/register as client_secret_basic: HTTP 403 access_denied",
        ],
        "may know only the clients or redirect URIs",
    ),
    Fails(
        "registration does not like our redirect URI, and tells a secret",
        {
            **REFUSES_PRM,
            AS: issuer(token_endpoint_auth_methods_supported=["client_secret_basic"]),
            REGISTER: Page(
                {"error": "invalid_redirect_uri", "error_description": "canary-secret"}, status=400
            ),
        },
        [
            "{as}/register as client_secret_basic: HTTP 400 invalid_redirect_uri",
            "{as}/register as client_secret_post: HTTP 400 invalid_redirect_uri",
        ],
        f"redirect URI {CALLBACK}",
    ),
    Fails(
        "registration without a client id",
        {**ANNOUNCES, REGISTER: Page({"client_secret": "canary-secret"}, status=201)},
        ["{as}/register as none: its answer has no client_id"],
        "oauth2_auth_url is {as}/authorize, oauth2_token_url is {as}/token",
    ),
    Fails(
        "registration that redirects",
        {**ANNOUNCES, REGISTER: redirect("{other}/register")},
        ["{as}/register as none: redirects to {other}: not followed"],
        "Register an application at {as}",
    ),
    Fails(
        "registration that is down",
        {**ANNOUNCES, REGISTER: Page(status=502)},
        ["{as}/register as none: HTTP 502"],
        "try again later",
    ),
)


async def connect(made: World, server: str) -> tuple[Discovered, Client]:
    """As an administrator does who gives nothing but the URL."""
    found = await discover(made.http, made.fill(server), limits=QUICK)
    client = await choose_client(
        made.http,
        found.issuer,
        document_url=DOCUMENT,
        redirect_uris=[CALLBACK],
        client_name="chatd",
        limits=QUICK,
    )
    return found, client


@pytest.mark.parametrize("shape", WORKING, ids=lambda shape: shape.name)
async def test_a_server_connects_from_its_url_alone(shape: Works) -> None:
    async with world(shape.pages) as made:
        found, client = await connect(made, shape.server)

        assert made.short(found.issuer.issuer) == shape.issuer
        assert made.short(found.resource) == shape.resource
        assert found.scopes == shape.scopes
        token_endpoint = shape.token_endpoint or shape.issuer.rstrip("/") + "/token"
        assert made.short(found.issuer.token_endpoint) == token_endpoint
        assert replace(client, secret=None) == Client(
            client_id=shape.client_id, auth_method=shape.method, source=shape.source
        )
        assert (client.secret is None) == (shape.method == "none")


@pytest.mark.parametrize("shape", FAILING, ids=lambda shape: shape.name)
async def test_a_server_that_does_not_connect_is_told_of_url_by_url(shape: Fails) -> None:
    async with world(shape.pages) as made:
        with pytest.raises((DiscoveryFailed, RegistrationFailed)) as failed:
            await connect(made, shape.server)

        failure: Attempted = failed.value
        assert made.told(failure) == list(shape.told)
        assert shape.next_step in made.short(failure.next_step)
        assert "canary-secret" not in f"{failure!r} {failure.detail} {failure.extra}"
        assert failure.__cause__ is None
        assert failure.__context__ is None
