"""Servers not as the standards want them: an issuer to expect, another resource, or none."""

from collections.abc import AsyncGenerator
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from fastapi import FastAPI
from mcp.shared.auth import OAuthClientInformationFull
from pydantic import AnyUrl
from starlette.responses import JSONResponse

from chatd.settings import Settings
from chatd.store.db import Database, load
from chatd.store.oauth_clients import client_of
from chatd.store.secrets import KeyRing
from tests.api.browsing import Browser, ask_to_connect, browsing, query
from tests.api.conftest import Person
from tests.api.issuer import METADATA, RESOURCE, Issuer, serving_issuer
from tests.api.test_oauth_discovery import CALLBACK, SERVER, add

ELSEWHERE = "https://elsewhere.invalid"


@pytest.fixture
async def issuer() -> AsyncGenerator[Issuer]:
    async with serving_issuer() as issuer:
        yield issuer


@pytest.fixture
async def browser(app: FastAPI) -> AsyncGenerator[Browser]:
    async with browsing(app) as browser:
        yield browser


@pytest.fixture
async def named(issuer: Issuer) -> AsyncGenerator[str]:
    """A name that the metadata has, at whose own place there is nothing."""
    async with serving_issuer() as other:
        for path in (METADATA, RESOURCE):
            other.replies[path] = partial(JSONResponse, {}, status_code=404)
        issuer.replies[METADATA] = issuer.metadata(issuer=other.url)
        yield other.url


def place(server: Any) -> str:
    return f"/mcp/servers/{server['id']}"


async def change(admin: Person, server: Any, **fields: Any) -> Any:
    answer = await admin.patch(place(server), fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def add_by_hand(admin: Person, issuer: Issuer, **fields: Any) -> Any:
    """With a client that an operator has registered there."""
    made = await add(
        admin,
        issuer,
        oauth2_client_id="by-hand",
        oauth2_client_secret="s3cret",
        oauth2_auth_method="client_secret_post",
        oauth2_auth_url=f"{issuer.url}/authorize",
        oauth2_token_url=f"{issuer.url}/token",
        **fields,
    )
    issuer.provider.clients["by-hand"] = OAuthClientInformationFull(
        client_id="by-hand",
        client_secret="s3cret",
        redirect_uris=[AnyUrl(CALLBACK.format(made["id"]))],
        token_endpoint_auth_method="client_secret_post",
        scope="read write",
    )
    return made


# --- the issuer


async def test_a_refusal_names_the_issuer_to_give_and_with_it_all_is_well(
    admin: Person, issuer: Issuer, named: str, db: Database
) -> None:
    answer = await admin.post("/mcp/servers", SERVER | {"url": issuer.mcp_url})
    told = answer.json()
    assert answer.status_code == 400
    assert f'give "oauth2_issuer": "{named}"' in told["next_step"]
    assert "oauth2_issuer" in {each["field"] for each in told["validations"]}
    made = await add(admin, issuer, oauth2_issuer=named)
    assert (made["oauth2_issuer"], made["oauth2_issuer_set"]) == (named, True)
    assert made["oauth2_client_source"] == "registered"
    (line,) = await db.fetch("SELECT after FROM audit_log")
    assert load(line["after"])["oauth2_issuer_set"] is True


async def test_answers_must_be_of_the_issuer_that_is_expected(
    admin: Person, member: Person, issuer: Issuer, named: str, browser: Browser
) -> None:
    made = await add(admin, issuer, oauth2_issuer=named)
    issuer.provider.iss = f"{issuer.url}/"
    refused = await browser.connect(await ask_to_connect(member, made["id"]))
    assert "another authorization server" in refused.text
    issuer.provider.iss = named
    assert "is connected" in (await browser.connect(await ask_to_connect(member, made["id"]))).text


async def test_looking_again_accepts_no_other_issuer(
    admin: Person, issuer: Issuer, named: str
) -> None:
    made = await add(admin, issuer, oauth2_issuer=named)
    issuer.replies[METADATA] = issuer.metadata()
    answer = await admin.post(f"{place(made)}/oauth2/discover", {})
    assert (answer.status_code, f'"{issuer.url}/"' in answer.json()["next_step"]) == (400, True)
    assert (await admin.get(place(made))).json() == made


async def test_what_was_found_is_not_expected_until_somebody_says_so(
    admin: Person, issuer: Issuer
) -> None:
    made = await add(admin, issuer)
    assert (made["oauth2_issuer_set"], made["oauth2_resource_set"]) == (False, False)
    renamed = await change(admin, made, display_name="Other")
    assert (renamed["oauth2_issuer_set"], renamed["oauth2_resource_set"]) == (False, False)
    assert renamed["oauth2_resource"] == issuer.mcp_url
    issuer.asked.clear()
    expected = await change(admin, made, oauth2_issuer=made["oauth2_issuer"])
    assert (expected["oauth2_issuer_set"], issuer.asked) == (True, [])
    assert expected["oauth2_client_id"] == made["oauth2_client_id"]


async def test_another_issuer_to_expect_is_looked_for_at_once(
    admin: Person, issuer: Issuer, db: Database
) -> None:
    made = await add(admin, issuer)
    answer = await admin.patch(place(made), {"oauth2_issuer": ELSEWHERE})
    assert answer.status_code == 400
    assert (await admin.get(place(made))).json() == made
    issuer.replies[METADATA] = issuer.metadata(issuer=f"{issuer.url}/tenant")
    changed = await change(admin, made, oauth2_issuer=f"{issuer.url}/tenant")
    assert changed["oauth2_issuer"] == f"{issuer.url}/tenant"
    assert changed["oauth2_client_id"] != made["oauth2_client_id"]
    (kept,) = await db.fetch("SELECT issuer, client_id FROM oauth_clients")
    assert dict(kept) == {"issuer": f"{issuer.url}/", "client_id": made["oauth2_client_id"]}


async def test_who_expects_nobody_any_more_gets_whoever_is_found(
    admin: Person, issuer: Issuer
) -> None:
    made = await add(admin, issuer, oauth2_issuer=f"{issuer.url}/", oauth2_scopes="read")
    changed = await change(admin, made, oauth2_issuer="")
    assert (changed["oauth2_issuer"], changed["oauth2_issuer_set"]) == (f"{issuer.url}/", False)
    for name in ("oauth2_client_id", "oauth2_scopes", "oauth2_token_url"):
        assert changed[name] == made[name]


async def test_an_issuer_of_a_client_by_hand_is_held_against_its_answers(
    admin: Person, member: Person, issuer: Issuer, browser: Browser
) -> None:
    made = await add_by_hand(admin, issuer, oauth2_issuer=ELSEWHERE)
    assert (made["oauth2_issuer"], made["oauth2_issuer_set"]) == (ELSEWHERE, True)
    issuer.provider.iss = f"{issuer.url}/"
    refused = await browser.connect(await ask_to_connect(member, made["id"]))
    assert "another authorization server" in refused.text
    issuer.asked.clear()
    await change(admin, made, oauth2_issuer=f"{issuer.url}/")
    assert issuer.asked == []
    assert "is connected" in (await browser.connect(await ask_to_connect(member, made["id"]))).text


async def test_tokens_of_a_client_by_hand_outlive_another_name_of_its_issuer(
    admin: Person,
    member: Person,
    issuer: Issuer,
    browser: Browser,
    db: Database,
    settings: Settings,
) -> None:
    made = await add_by_hand(admin, issuer)
    assert (made["oauth2_issuer"], made["oauth2_issuer_set"]) == ("", False)
    await browser.connect(await ask_to_connect(member, made["id"]))
    await change(admin, made, oauth2_issuer=f"{issuer.url}/")
    assert (await member.get(place(made))).json()["auth_connected"] is True
    keys, server_id = KeyRing(settings.keys()), UUID(made["id"])
    for name in ("", f"{issuer.url}/"):
        bound = name, made["oauth2_client_id"], f"{issuer.url}/token"
        known = await client_of(db, keys, server_id, *bound)
        assert known is not None
        assert known.token_url == f"{issuer.url}/token"
    emptied = await change(admin, made, oauth2_issuer="")
    assert (emptied["oauth2_issuer"], emptied["oauth2_issuer_set"]) == ("", False)


# --- the resource


async def asked_for(member: Person, server: Any, issuer: Issuer, browser: Browser) -> list[Any]:
    """The `resource` of the authorization request, and of the token request."""
    issuer.asked.clear()
    await browser.connect(await ask_to_connect(member, server["id"]))
    asked = query(await browser.leave(await ask_to_connect(member, server["id"])))
    (form,) = issuer.forms("/token")
    return [asked.get("resource"), form.get("resource")]


async def test_tokens_are_asked_for_another_resource_or_none(
    admin: Person, member: Person, issuer: Issuer, browser: Browser
) -> None:
    made = await add(admin, issuer, oauth2_resource="api://tickets")
    assert (made["oauth2_resource"], made["oauth2_resource_set"]) == ("api://tickets", True)
    assert await asked_for(member, made, issuer, browser) == ["api://tickets"] * 2
    again = (await admin.post(f"{place(made)}/oauth2/discover", {})).json()
    assert again["oauth2_resource"] == "api://tickets"
    silent = await change(admin, made, oauth2_send_resource=False)
    assert (silent["oauth2_send_resource"], silent["oauth2_resource"]) == (False, "api://tickets")
    assert await asked_for(member, made, issuer, browser) == [None, None]


async def test_a_resource_that_is_emptied_is_the_one_that_is_found_again(
    admin: Person, issuer: Issuer, db: Database
) -> None:
    made = await add(admin, issuer, oauth2_resource="api://tickets")
    changed = await change(admin, made, oauth2_resource="")
    assert (changed["oauth2_resource"], changed["oauth2_resource_set"]) == (issuer.mcp_url, False)
    assert changed["oauth2_client_id"] == made["oauth2_client_id"]
    assert await db.fetch("SELECT 1 FROM oauth_clients") == []


async def test_a_client_by_hand_has_the_servers_url_as_resource_unless_it_says_another(
    admin: Person, member: Person, issuer: Issuer, browser: Browser
) -> None:
    made = await add_by_hand(admin, issuer)
    assert await asked_for(member, made, issuer, browser) == [issuer.mcp_url] * 2
    await change(admin, made, oauth2_resource=issuer.url)
    assert await asked_for(member, made, issuer, browser) == [issuer.url] * 2
    assert (await change(admin, made, oauth2_resource=""))["oauth2_resource"] == ""
    assert await asked_for(member, made, issuer, browser) == [issuer.mcp_url] * 2


@pytest.mark.parametrize("resource", ["tickets", "https://x.example/#a", "https://x y", "ü://x"])
async def test_a_resource_is_an_absolute_uri(admin: Person, issuer: Issuer, resource: str) -> None:
    wrong = {"url": issuer.mcp_url, "oauth2_resource": resource}
    answer = await admin.post("/mcp/servers", SERVER | wrong)
    assert (answer.status_code, issuer.asked) == (400, [])
    assert [each["field"] for each in answer.json()["validations"]] == ["oauth2_resource"]


# --- whose they are


async def test_they_end_with_the_auth_type(admin: Person, issuer: Issuer) -> None:
    overrides = {"oauth2_issuer": f"{issuer.url}/", "oauth2_resource": "api://tickets"}
    made = await add(admin, issuer, **overrides)
    gone = await change(admin, made, auth_type="none")
    assert (gone["oauth2_issuer"], gone["oauth2_issuer_set"]) == ("", False)
    assert (gone["oauth2_resource"], gone["oauth2_resource_set"]) == ("", False)
    answer = await admin.patch(place(made), overrides)
    fields = {each["field"] for each in answer.json()["validations"]}
    assert (answer.status_code, fields) == (400, set(overrides))


async def test_members_do_not_see_them(admin: Person, member: Person, issuer: Issuer) -> None:
    overrides = {"oauth2_issuer": f"{issuer.url}/", "oauth2_resource": "api://tickets"}
    made = await add(admin, issuer, **overrides)
    seen = (await member.get(place(made))).json()
    for name in overrides:
        assert (seen[name], seen[f"{name}_set"]) == ("", False)
