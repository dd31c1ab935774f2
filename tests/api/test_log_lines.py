"""What one request leaves in the log."""

import json
import logging
from collections.abc import Generator
from typing import Any

import pytest
import structlog
from fastapi import FastAPI

from chatd import logs
from chatd.api.auth import Signed
from tests.api.conftest import BASE, Person, text

Lines = list[Any]


@pytest.fixture
def lines() -> Generator[Lines]:
    written: Lines = []
    root, before = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers, root.level
    logs.configure("json", "info", write=lambda line: written.append(json.loads(line)))
    yield written
    logging.captureWarnings(capture=False)
    structlog.configure(**before)
    root.handlers = handlers
    root.setLevel(level)


async def test_one_line_a_request_with_its_ids(member: Person, model: str, lines: Lines) -> None:
    chat = (await member.post("/chats", {"content": text("hi")})).json()["id"]
    answer = await member.get(f"/chats/{chat}?q=access_token%3Dsecret")
    await member.http.get("/readyz")
    line = lines[-1]
    assert [line["event"] for line in lines] == ["request", "request"]
    assert line["request_id"] == answer.headers["x-request-id"]
    assert (line["user"], line["chat"]) == (str(member.user.id), chat)
    assert (line["method"], line["path"], line["status"]) == ("GET", f"{BASE}/chats/{chat}", 200)
    assert "secret" not in json.dumps(lines)


async def test_a_defect_is_logged_with_the_requests_ids(
    app: FastAPI, member: Person, lines: Lines
) -> None:
    async def fail(actor: Signed) -> Any:
        raise RuntimeError("postgresql://chatd:s3cr3t@db/chatd")

    app.add_api_route("/fail", fail)
    answer = await member.http.get("/fail")
    failed, request = lines
    assert (failed["level"], failed["event"]) == ("error", "request failed")
    assert "RuntimeError" in failed["exception"]
    assert failed["request_id"] == request["request_id"] == answer.json()["request_id"]
    assert failed["user"] == str(member.user.id)
    assert "s3cr3t" not in json.dumps(lines)


async def test_the_ids_of_one_request_are_not_in_the_next(
    app: FastAPI, member: Person, lines: Lines
) -> None:
    await member.get("/chats")
    await member.http.get("/nowhere")
    assert "user" in lines[0]
    assert "user" not in lines[1]
