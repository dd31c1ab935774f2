"""The OpenAPI document, and whether the API keeps what it says: fuzzed, without a single 5xx."""

import asyncio
import re
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import httpx2
import pytest
import requests
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, seed, settings as hypothesis_settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from chatd.api.app import create_app
from chatd.settings import Settings
from chatd.store.db import Database
from tests.api.conftest import BASE, Person, enter, text

EXAMPLES = 10
"""Of each operation and kind of data; every one is sent twice."""

CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]
ENDLESS = {
    f"{BASE}/chats/{{chat}}/stream",
    f"{BASE}/chats/watch",
    # These wait for a worker, and there is none.
    f"{BASE}/chats/{{chat}}/title/propose",
    f"{BASE}/chats/{{chat}}/title/regenerate",
}


@dataclass(frozen=True)
class Running:
    """The application in a loop of its own, for Hypothesis, which knows no coroutines."""

    app: FastAPI
    run: Callable[[Coroutine[Any, Any, Any]], Any]
    admin: Person
    ids: dict[str, str]


@pytest.fixture
def running(settings: Settings) -> Generator[Running]:
    app = create_app(settings)
    with asyncio.Runner() as runner:
        lifespan = app.router.lifespan_context(app)
        runner.run(lifespan.__aenter__())
        admin, ids = runner.run(populate(app, settings))
        yield Running(app, runner.run, admin, ids)
        runner.run(admin.http.aclose())
        runner.run(lifespan.__aexit__(None, None, None))


async def populate(app: FastAPI, settings: Settings) -> tuple[Person, dict[str, str]]:
    """An administrator, and one of everything that a path can name."""
    db = Database(settings.database_url.get_secret_value(), pool_size=1)
    admin = await enter(app, db, "ada", "admin")
    await db.close()
    compat = {"provider": "openai-compat", "base_url": "http://127.0.0.1:9/v1"}
    provider = (await admin.post("/chats/providers", compat)).json()
    config = {"provider_id": provider["id"], "model": "m", "context_limit": 1000}
    config = (await admin.post("/chats/model-configs", config)).json()
    server = {
        "display_name": "s",
        "slug": "s",
        "transport": "sse",
        "url": "http://127.0.0.1:9/",
        "auth_type": "none",
        "availability": "default_off",
        "enabled": True,
    }
    server = (await admin.post("/mcp/servers", server)).json()
    chat = (await admin.post("/chats", {"content": text("hi")})).json()
    file = (await admin.http.post(f"{BASE}/chats/files", content=b"hi")).json()
    user = (await admin.post("/users", {"username": "bob"})).json()
    token = (await admin.post(f"/users/{user['id']}/tokens", {"name": "t"})).json()
    group = (await admin.post("/groups", {"name": "g"})).json()
    ids = {"provider": provider, "config": config, "server": server, "chat": chat, "file": file}
    ids |= {"user": user, "token": token, "group": group}
    return admin, {name: made["id"] for name, made in ids.items()} | {"turn": chat["turn"]["id"]}


def send(running: Running, case: Any) -> schemathesis.Response:
    prepared = requests.Request(**case.as_transport_kwargs(base_url="http://chatd")).prepare()
    body: Any = prepared.body or b""
    headers: Any = dict(prepared.headers) | {"Authorization": f"Bearer {running.admin.token}"}
    answer: httpx2.Response = running.run(
        running.admin.http.request(
            str(prepared.method), str(prepared.url), content=body, headers=headers
        )
    )
    return schemathesis.Response(
        status_code=answer.status_code,
        headers={name: answer.headers.get_list(name) for name in answer.headers},
        content=answer.content,
        request=prepared,
        elapsed=0.0,
        verify=False,
    )


def operations(app: FastAPI) -> Iterator[Any]:
    schema = schemathesis.openapi.from_dict(app.openapi())
    for found in schema.get_all_operations():
        operation = cast(Any, found).ok()
        if operation.path not in ENDLESS:
            yield operation


def name_what_exists(case: Any, ids: dict[str, str]) -> None:
    """Else almost everything that is sent would name what does not exist."""
    case.path_parameters = {
        name: ids.get(name, value) for name, value in case.path_parameters.items()
    }
    if isinstance(case.body, dict):
        known: dict[str, Any] = {
            "model_config_id": ids["config"],
            "provider_id": ids["provider"],
            "mcp_server_ids": [ids["server"]],
            "auth_type": "none",
            "url": "http://127.0.0.1:9/",
            "icon_url": "data:image/png;base64,aGk=",
            "api_key_header": "X-Key",
            "custom_headers": {},
        }
        body: dict[str, Any] = case.body
        case.body = {name: known.get(name, value) for name, value in body.items()}


def check_operation(running: Running, operation: Any, mode: GenerationMode) -> None:
    @seed(1)
    @hypothesis_settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        for known in (False, True):
            if known:
                name_what_exists(case, running.ids)
            answer = send(running, case)
            assert answer.status_code < 500, (case.as_curl_command(), answer.content)
            case.validate_response(answer, checks=CHECKS)

    # Some operations take nothing that could be wrong.
    with suppress(Unsatisfiable):
        check()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_whatever_is_sent_the_answer_is_a_documented_one(
    running: Running, mode: GenerationMode
) -> None:
    for operation in sorted(operations(running.app), key=_order):
        check_operation(running, operation, mode)


def _order(operation: Any) -> int:
    """Changes and deletions last: the others should find what they name, and find it usable."""
    return ("get", "post", "put", "patch", "delete").index(operation.method)


def test_the_document_says_what_a_client_needs(running: Running) -> None:
    document = running.app.openapi()
    assert "HTTPValidationError" not in document["components"]["schemas"]
    schemes = document["components"]["securitySchemes"]
    assert schemes["bearer"]["scheme"] == "bearer"
    assert (schemes["session"]["in"], schemes["session"]["name"]) == (
        "cookie",
        "__Host-chatd_session",
    )
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            what = f"{method} {path}"
            assert operation["summary"], what
            assert operation["tags"], what
            assert "422" not in operation["responses"], what
            if path.startswith(BASE):
                assert operation["security"] == [{"bearer": []}, {"session": []}], what
                refusals = {"400", "401", "413", "503"} & set(operation["responses"])
                assert len(refusals) == 4, what
    for name in ("ChatBody", "MessageBody", "ServerBody", "ConfigBody", "ProviderBody"):
        assert document["components"]["schemas"][name]["examples"], name


async def test_no_script_but_the_one_we_know_runs_where_browsers_are_signed_in(
    anonymous: httpx2.AsyncClient,
) -> None:
    page = await anonymous.get("/docs")
    loaded = re.findall(r"<(?:script src|link)[^>]*>", page.text)
    assert len(loaded) == 2
    for each in loaded:
        assert re.search(r'@\d+\.\d+\.\d+/[^"]*" integrity="sha384-[^"]{64}" crossorigin', each)
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'sha256-" in policy
    assert "frame-ancestors 'none'" in policy
    gone = [(await anonymous.get(path)).status_code for path in ("/redoc", "/docs/oauth2-redirect")]
    assert gone == [404, 404]
