"""Bad requests and bad weather: one shape, nothing internal, nothing written."""

import re
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from chatd.api.app import create_app
from chatd.api.auth import Signed
from chatd.api.limits import MAX_DEPTH
from chatd.core.errors import ChatdError
from chatd.settings import Settings
from chatd.store.db import Database
from tests.api.conftest import BASE, Person, client, text

SHAPE = {"message", "detail", "validations", "code", "request_id"}


async def send(person: Person, body: bytes, path: str = "/chats") -> httpx2.Response:
    headers = {"content-type": "application/json"}
    return await person.http.post(BASE + path, content=body, headers=headers)


def check_shape(answer: httpx2.Response, status: int, code: str) -> None:
    body = answer.json()
    assert (answer.status_code, body["code"]) == (status, code), answer.text
    assert set(body) == SHAPE
    assert body["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", f"{BASE}/chats/", 404, "not_found"),
        ("PUT", f"{BASE}/chats", 405, "method_not_allowed"),
        ("GET", f"{BASE}/chats/not-a-uuid", 400, "bad_request"),
        ("GET", f"{BASE}/mcp/servers/not-a-uuid", 400, "bad_request"),
        ("GET", f"{BASE}/chats", 401, "unauthorized"),
    ],
)
async def test_every_refusal_has_one_shape(
    anonymous: httpx2.AsyncClient, member: Person, method: str, path: str, status: int, code: str
) -> None:
    http = anonymous if status == 401 else member.http
    check_shape(await http.request(method, path), status, code)


async def test_ids_that_are_none_are_named(member: Person) -> None:
    for path, message in (
        ("/chats/x", "Invalid chat ID."),
        ("/mcp/servers/x", "Invalid MCP server config ID."),
    ):
        assert (await member.get(path)).json()["message"] == message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b'{"content": NaN}',
        b"\xff\xfe",
        b'{"content": [{"type": "text", "text": "\xed\xa0\x80"}]}',
        b'{"content": [{"type": "text", "text": "\\ud800"}]}',
        b"[" * 100_000,
        b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    ],
)
async def test_what_is_no_json_object_is_refused(
    member: Person, model: str, db: Database, body: bytes
) -> None:
    check_shape(await send(member, body), 400, "bad_request")
    assert await db.fetch("SELECT 1 FROM chats") == []


@pytest.mark.parametrize(
    "body",
    [
        b'{"content": [{"type": "text", "text": "a\\u0000b"}]}',
        b'{"content": [{"type": "text", "text": "ok"}], "labels": {"a\\u0000": "x"}}',
        b'{"content": [{"type": "text", "text": "ok"}], "ignored": {"deep": ["\\u0000"]}}',
        b'{"content": [{"type": "text", "text": "ok"}], "ig\\u0000nored": 1}',
    ],
)
async def test_a_nul_anywhere_is_refused(
    member: Person, model: str, db: Database, body: bytes
) -> None:
    answer = await send(member, body)
    check_shape(answer, 400, "bad_request")
    assert "NUL" in answer.json()["message"]
    assert await db.fetch("SELECT 1 FROM chats") == []


@pytest.mark.parametrize("depth", [95, 120, 250, 1000])
async def test_what_is_nested_too_deeply_to_be_written_again_is_refused(
    member: Person, model: str, depth: int
) -> None:
    schema = '{"items":' * depth + "{}" + "}" * depth
    tool = f'{{"name": "t", "input_schema": {schema}}}'
    body = f'{{"content": [{{"type": "text", "text": "hi"}}], "unsafe_dynamic_tools": [{tool}]}}'
    answer = await send(member, body.encode())
    if depth < MAX_DEPTH:
        tools = await member.get(f"/chats/{answer.json()['id']}/tools")
        assert (answer.status_code, tools.status_code) == (201, 200)
    else:
        check_shape(answer, 400, "bad_request")


async def test_an_escaped_backslash_is_no_nul(member: Person, model: str) -> None:
    body = b'{"content": [{"type": "text", "text": "\\\\u0000"}]}'
    answer = await send(member, body)
    assert answer.json()["title"] == "\\u0000"


@pytest.mark.parametrize("path", ["/chats?q=%00", "/chats/%00", "/chats?label=a:%00", "/a%00b"])
async def test_a_nul_in_path_or_query_is_refused(member: Person, path: str) -> None:
    check_shape(await member.get(path), 400, "bad_request")


async def test_other_content_types_are_refused(member: Person, model: str) -> None:
    body = b'{"content": [{"type": "text", "text": "x"}]}'
    answer = await member.http.post(
        f"{BASE}/chats", content=body, headers={"content-type": "text/plain"}
    )
    check_shape(answer, 400, "bad_request")
    assert "application/json" in answer.json()["message"]


async def test_a_body_over_the_limit_is_refused(member: Person, model: str, db: Database) -> None:
    body = b'{"content": [{"type": "text", "text": "' + b"x" * 262_144 + b'"}]}'
    check_shape(await send(member, body), 413, "too_large")

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 10_000):
            yield body[start : start + 10_000]

    answer = await member.http.post(
        f"{BASE}/chats", content=chunks(), headers={"content-type": "application/json"}
    )
    check_shape(answer, 413, "too_large")
    assert await db.fetch("SELECT 1 FROM chats") == []


async def test_a_body_at_the_limit_is_taken(member: Person, model: str) -> None:
    frame = b'{"content": [{"type": "text", "text": "%s"}]}'
    body = frame % (b"x" * (262_144 - len(frame) + 2))
    assert len(body) == 262_144
    assert (await send(member, body)).status_code == 201


@pytest.mark.parametrize("sent", ["abc-1_2.X", "x" * 128])
async def test_a_sane_request_id_is_kept(anonymous: httpx2.AsyncClient, sent: str) -> None:
    answer = await anonymous.get("/healthz", headers={"X-Request-Id": sent})
    assert answer.headers["x-request-id"] == sent


@pytest.mark.parametrize("sent", ["", "a b", "x" * 129, 'a"b', "a\tb", "é"])
async def test_another_request_id_is_replaced(anonymous: httpx2.AsyncClient, sent: str) -> None:
    headers = [(b"X-Request-Id", sent.encode("latin-1"))]
    answer = await anonymous.get("/healthz", headers=headers)
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])


def fail_with(app: FastAPI, error: Exception) -> None:
    async def fail(actor: Signed) -> Any:
        raise error

    app.add_api_route("/fail", fail)


async def test_a_defect_shows_nothing_of_itself(app: FastAPI, member: Person) -> None:
    fail_with(app, RuntimeError("postgresql://chatd:hidden@db"))
    answer = await member.http.get("/fail")
    check_shape(answer, 500, "internal")
    assert "hidden" not in answer.text
    assert answer.json()["message"] == "An internal error occurred."


async def test_our_own_internal_errors_show_nothing_either(app: FastAPI, member: Person) -> None:
    fail_with(app, ChatdError("hidden", detail="hidden", extra={"a": "hidden"}))
    answer = await member.http.get("/fail")
    check_shape(answer, 500, "internal")
    assert "hidden" not in answer.text


async def test_without_the_database_the_answer_is_503(settings: Settings) -> None:
    url = "postgresql://nobody:nothing@127.0.0.1:9/none"
    away = settings.model_copy(update={"database_url": type(settings.database_url)(url)})
    app = create_app(away)
    async with app.router.lifespan_context(app), client(app, authorization="Bearer x") as http:
        answer = await http.post(f"{BASE}/chats", json={"content": text("x")})
        check_shape(answer, 503, "unavailable")
        assert int(answer.headers["retry-after"]) > 0
        ready = await http.get("/readyz")
        assert ready.status_code == 503
        assert ready.json() == {
            "status": "unavailable",
            "checks": {"database": "failed", "redis": "ok"},
        }
