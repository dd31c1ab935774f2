"""Behind https: cookies are for https alone, and our client id may be a document of ours."""

from collections.abc import AsyncGenerator
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from chatd.settings import Settings
from tests.api.browsing import ask_to_connect, browsing, fields, query
from tests.api.conftest import Person
from tests.api.issuer import METADATA, Issuer, serving_issuer
from tests.api.test_oauth_discovery import add

ACCESS_URL = "https://chatd.example/tools"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Behind a proxy that takes the path away."""
    return settings.model_copy(update={"access_url": ACCESS_URL})


@pytest.fixture
async def issuer() -> AsyncGenerator[Issuer]:
    async with serving_issuer() as issuer:
        issuer.replies[METADATA] = issuer.metadata(client_id_metadata_document_supported=True)
        yield issuer


@pytest.fixture
async def server(admin: Person, issuer: Issuer) -> Any:
    return await add(admin, issuer)


async def test_a_document_of_ours_is_the_client(
    server: Any, issuer: Issuer, anonymous: httpx2.AsyncClient
) -> None:
    assert issuer.provider.clients == {}
    place = f"/api/experimental/mcp/servers/{server['id']}/oauth2/"
    client_id = f"{ACCESS_URL}{place}client-metadata.json"
    assert server["oauth2_client_id"] == client_id
    assert server["oauth2_client_source"] == "metadata_document"
    answer = await anonymous.get(f"{place}client-metadata.json")
    document = answer.json()
    assert document["client_id"] == client_id
    assert document["redirect_uris"] == [f"{ACCESS_URL}{place}callback"]
    assert document["token_endpoint_auth_method"] == "none"
    assert "public" in answer.headers["cache-control"]


async def test_forms_are_for_the_path_that_browsers_see(
    app: FastAPI, member: Person, server: Any
) -> None:
    link = await ask_to_connect(member, server["id"])
    assert link.startswith(f"{ACCESS_URL}/api/experimental/mcp/servers/")
    async with browsing(app) as browser:
        page = await browser.open(link.replace("/tools", "", 1))
    place = f"/tools/api/experimental/mcp/servers/{server['id']}/oauth2/"
    assert f'action="{place}consent"' in page.text
    assert "form-action 'self' https: http://127.0.0.1" in page.headers["content-security-policy"]
    assert query(link).keys() == {"ticket"}


async def test_no_other_host_can_set_the_cookies_of_a_flow(
    app: FastAPI, member: Person, server: Any
) -> None:
    """Else it could lead others to a callback of its own, and have their accounts."""
    link = await ask_to_connect(member, server["id"])
    async with browsing(app) as browser:
        page = await browser.open(link.replace("/tools", "", 1))
        place = str(page.request.url).partition("?")[0]
        (cookie,) = page.headers.get_list("set-cookie")
        sent = {"cookie": cookie.partition(";")[0]}
        leaving = await browser.http.post(place, data=fields(page), headers=sent)
        gone, cookie = leaving.headers.get_list("set-cookie")
        state = query(leaving.headers["location"])["state"]
        back = f"{place.replace('consent', 'callback')}?state={state}"
        named = cookie.partition(";")[0].encode()
        tossed = (named.removeprefix(b"__Host-"), b"\x85" + named)
        refused = [await browser.http.get(back, headers={b"cookie": each}) for each in tossed]
        answer = await browser.http.get(back, headers={b"cookie": named})
    for each in (cookie, gone):
        assert each.startswith("__Host-mcp_oauth2_")
        assert each.endswith("; Path=/; HttpOnly; SameSite=Lax; Secure")
    assert ["not begun in this browser" in page.text for page in refused] == [True, True]
    assert "could not let you in" in answer.text  # there was no code
