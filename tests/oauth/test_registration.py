"""A client of our own: what is asked for, and what is made of the answer."""

from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from pydantic import SecretStr

from chatd.core.oauth import Client, Issuer
from chatd.oauth.attempts import RegistrationFailed
from chatd.oauth.discovery import Limits
from chatd.oauth.registration import choose_client, client_document, register
from tests.oauth.broken import Page, World, world

CALLBACK = "https://chat.example/callback"
DOCUMENT = "https://chat.example/oauth/client.json"
REGISTER = "as POST /register"
OPTIONS: dict[str, Any] = {"redirect_uris": [CALLBACK], "client_name": "chatd"}


def at(made: World, **changes: Any) -> Issuer:
    values: dict[str, Any] = {
        "issuer": made.fill("{as}"),
        "authorization_endpoint": made.fill("{as}/authorize"),
        "token_endpoint": made.fill("{as}/token"),
        "registration_endpoint": made.fill("{as}/register"),
    }
    return Issuer(**{**values, **changes})


async def registered(answer: Mapping[str, Any], *announced: str) -> Client:
    async with world({REGISTER: Page(dict(answer), status=201)}) as made:
        return await register(made.http, at(made, auth_methods=announced), **OPTIONS)


def methods(made: World) -> list[str]:
    return [orjson.loads(body)["token_endpoint_auth_method"] for body in made.bodies]


async def test_we_register_as_a_web_client_that_refreshes() -> None:
    async with world({REGISTER: Page({"client_id": "c"}, status=201)}) as made:
        await register(
            made.http, at(made), **OPTIONS, client_uri="https://chat.example", scopes="read write"
        )
        assert [orjson.loads(body) for body in made.bodies] == [
            {
                "client_name": "chatd",
                "client_uri": "https://chat.example",
                "redirect_uris": [CALLBACK],
                "grant_types": ["authorization_code", "refresh_token"],
                "response_types": ["code"],
                "application_type": "web",
                "token_endpoint_auth_method": "none",
                "scope": "read write",
            }
        ]


@pytest.mark.parametrize("said", [[], None, "x", [CALLBACK], ["https://x.example", CALLBACK]])
async def test_an_answer_may_repeat_our_redirect_uri_or_not(said: object) -> None:
    assert (await registered({"client_id": "c", "redirect_uris": said})).client_id == "c"


async def test_a_client_with_other_redirect_uris_is_no_client() -> None:
    with pytest.raises(RegistrationFailed) as failed:
        await registered({"client_id": "c", "redirect_uris": [f"{CALLBACK}/"]})
    assert [attempt.found for attempt in failed.value.attempts] == [
        "as none: it registered other redirect URIs than ours"
    ]


@pytest.mark.parametrize(
    ("announced", "tried"),
    [
        ((), ["none", "client_secret_post", "client_secret_basic"]),
        (("none",), ["none", "client_secret_post", "client_secret_basic"]),
        (
            ("client_secret_basic", "none"),
            ["none", "client_secret_basic", "client_secret_post"],
        ),
        (("client_secret_basic",), ["client_secret_basic", "client_secret_post"]),
        (("private_key_jwt",), ["client_secret_post", "client_secret_basic"]),
    ],
)
async def test_what_is_announced_is_tried_first(
    announced: tuple[str, ...], tried: list[str]
) -> None:
    async with world({REGISTER: Page(status=400)}) as made:
        with pytest.raises(RegistrationFailed) as failed:
            await register(made.http, at(made, auth_methods=announced), **OPTIONS)
        assert methods(made) == tried
        assert [attempt.found for attempt in failed.value.attempts] == [
            f"as {method}: HTTP 400" for method in tried
        ]


@pytest.mark.parametrize("status", [404, 405, 429, 500, 503, 302])
async def test_an_answer_that_is_not_about_us_ends_the_search(status: int) -> None:
    async with world({REGISTER: Page(status=status)}) as made:
        with pytest.raises(RegistrationFailed):
            await register(made.http, at(made), **OPTIONS)
        assert methods(made) == ["none"]


ID: dict[str, Any] = {"client_id": "c"}
BOTH: dict[str, Any] = {**ID, "client_secret": "s"}
SECRET = SecretStr("s")


@pytest.mark.parametrize(
    ("answer", "announced", "client"),
    [
        (ID, (), Client("c", source="registered")),
        (BOTH, (), Client("c", "client_secret_basic", SECRET, source="registered")),
        (
            BOTH,
            ("client_secret_post", "none"),
            Client("c", "client_secret_post", SECRET, source="registered"),
        ),
        (
            {**BOTH, "token_endpoint_auth_method": "none"},
            (),
            Client("c", source="registered"),
        ),
        (
            BOTH,
            ("client_secret_post",),
            Client("c", "client_secret_post", SECRET, source="registered"),
        ),
        (
            {**BOTH, "token_endpoint_auth_method": "client_secret_basic"},
            ("client_secret_post",),
            Client("c", "client_secret_basic", SECRET, source="registered"),
        ),
    ],
    ids=[
        "public, method unsaid",
        "a secret for a public client: RFC 7591's default",
        "a secret for a public client: what is announced",
        "a secret that is not used",
        "as asked for",
        "another method than asked for",
    ],
)
async def test_the_server_has_the_last_word_on_the_client(
    answer: dict[str, Any], announced: tuple[str, ...], client: Client
) -> None:
    assert await registered(answer, *announced) == client


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ({}, "its answer has no client_id"),
        ({"client_id": 7}, "its answer has no client_id"),
        ({"client_id": "a\nb"}, "its answer has no client_id"),
        ({"client_id": ""}, "its answer has no client_id"),
        ({**ID, "token_endpoint_auth_method": "client_secret_post"}, "no client_secret"),
        ({**BOTH, "token_endpoint_auth_method": "private_key_jwt"}, "it wants private_key_jwt"),
        ({**BOTH, "token_endpoint_auth_method": "canary"}, "it wants an unknown method"),
        ({**BOTH, "token_endpoint_auth_method": ["canary"]}, "it wants an unknown method"),
    ],
)
async def test_an_answer_that_makes_no_client(answer: dict[str, Any], found: str) -> None:
    with pytest.raises(RegistrationFailed) as failed:
        await registered(answer)
    assert found in failed.value.attempts[0].found
    assert "canary" not in failed.value.detail


@pytest.mark.parametrize(
    "page",
    [
        Page(body=b"canary", status=201),
        Page([1], status=201),
        Page(body=b"data: canary\n\n", headers="content-type: text/event-stream\r\n"),
        Page({"error": "canary said this"}, status=400),
        Page({"error": ["canary"]}, status=400),
        Page(body=b"canary" * 100_000, status=201),
    ],
    ids=["not JSON", "a list", "a stream", "a sentence", "no string", "too large"],
)
async def test_no_failure_repeats_what_the_server_said(page: Page) -> None:
    async with world({REGISTER: page}) as made:
        with pytest.raises(RegistrationFailed) as failed:
            await register(made.http, at(made), **OPTIONS)
        failure = failed.value
        assert "canary" not in f"{failure!r} {failure.detail} {failure.extra}"
        assert failure.__context__ is None


async def test_a_server_that_hangs_is_left() -> None:
    async with world({REGISTER: Page(hangs=True)}) as made:
        with pytest.raises(RegistrationFailed) as failed:
            await register(made.http, at(made), **OPTIONS, limits=Limits(request_s=0.1, total_s=1))
        assert failed.value.attempts[0].found == "as none: no answer in time"
        with pytest.raises(RegistrationFailed) as failed:
            await register(made.http, at(made), **OPTIONS, limits=Limits(total_s=0.1))
        assert failed.value.attempts[0].found == "no answer before the time for all was over"


async def test_an_endpoint_inside_is_not_dialled() -> None:
    async with world({}) as made:
        inside = at(made, registration_endpoint="http://10.0.0.1/register")
        with pytest.raises(RegistrationFailed) as failed:
            await register(made.http, inside, **OPTIONS)
        assert failed.value.attempts[0].found.startswith("as none: refused: host '10.0.0.1'")
        assert "may not call" in failed.value.next_step


async def test_our_document_is_used_only_where_it_is_taken_and_can_be_fetched() -> None:
    async with world({REGISTER: Page({"client_id": "c"}, status=201)}) as made:
        takes = at(made, takes_metadata_documents=True)
        document = Client(DOCUMENT, source="metadata_document")
        own = Client("c", source="registered")

        async def chosen(issuer: Issuer, url: str) -> Client:
            return await choose_client(made.http, issuer, document_url=url, **OPTIONS)

        assert await chosen(takes, DOCUMENT) == document
        assert await chosen(takes, "http://127.0.0.1:8000/client.json") == own
        assert await chosen(takes, "") == own
        assert await chosen(at(made), DOCUMENT) == own


async def test_a_document_that_nobody_can_fetch_is_told_of() -> None:
    async with world({}) as made:
        issuer = at(made, takes_metadata_documents=True, registration_endpoint="")
        with pytest.raises(RegistrationFailed) as failed:
            await choose_client(
                made.http, issuer, document_url="https://localhost/client.json", **OPTIONS
            )
        assert "check CHATD_ACCESS_URL" in failed.value.next_step


def test_the_document_names_itself_and_holds_no_secret() -> None:
    assert client_document(DOCUMENT, [CALLBACK], client_name="chatd") == {
        "client_id": DOCUMENT,
        "client_name": "chatd",
        "redirect_uris": [CALLBACK],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "application_type": "web",
        "token_endpoint_auth_method": "none",
    }
