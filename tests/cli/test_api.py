"""`chatd api` as a process: it answers, says that it is leaving, and leaves."""

import json
import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner

from chatd.cli.main import app
from chatd.dev.children import Child, Spec, start_child
from chatd.dev.ports import free_port, listen
from chatd.dev.valkey import Valkey
from tests.cli.commands import Chatd
from tests.starting import RUN
from tests.waiting import until

BASE = "/api/experimental"


@dataclass(frozen=True)
class Api:
    child: Child
    http: httpx2.AsyncClient
    metrics_url: str

    async def ready(self) -> str:
        """What `/readyz` says, or nothing while nobody answers."""
        try:
            return (await self.http.get("/readyz")).json()["status"]
        except httpx2.TransportError:
            return ""

    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.child.spec.log.read_text().splitlines()]


@asynccontextmanager
async def started(folder: Path, environment: dict[str, Any]) -> AsyncGenerator[Api]:
    metrics_port = free_port()
    with listen() as door:
        url = f"http://127.0.0.1:{door.getsockname()[1]}"
        options = ("--fd", str(door.fileno()), "--metrics-port", str(metrics_port))
        child = start_child(
            Spec(
                [sys.executable, "-c", RUN, "api", *options],
                log=folder / "api.log",
                env={"PATH": os.defpath, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
                keep_open=(door.fileno(),),
            )
        )
    try:
        async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=20) as http:
            api = Api(child, http, f"http://127.0.0.1:{metrics_port}/metrics")

            async def answers() -> bool:
                assert child.running, child.failure("ended")
                return await api.ready() == "ok"

            await until(answers)
            yield api
    finally:
        child.kill()


@pytest.fixture
def settings(environment: dict[str, str | None], valkey: Valkey) -> dict[str, Any]:
    return {**environment, "CHATD_REDIS_URL": valkey.url, "CHATD_DRAIN_DELAY_SECONDS": "300"}


async def test_it_answers_and_counts(tmp_path: Path, settings: dict[str, Any]) -> None:
    async with started(tmp_path, settings) as api:
        answer = await api.http.get(f"{BASE}/chats", headers={"X-Request-Id": "mine"})
        assert (answer.status_code, answer.headers["x-request-id"]) == (401, "mine")
        assert "server" not in answer.headers
        metrics = (await api.http.get(api.metrics_url)).text
        assert 'chatd_http_requests_total{method="GET",route="/chats",status="401"} 1.0' in metrics
        (line,) = [line for line in api.lines() if line.get("path") == f"{BASE}/chats"]
        assert (line["event"], line["request_id"], line["status"]) == ("request", "mine", 401)


async def test_a_metrics_path_is_not_on_the_public_port(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    async with started(tmp_path, settings) as api:
        assert (await api.http.get("/metrics")).status_code == 404


async def test_at_sigterm_it_says_so_before_it_stops(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    async with started(tmp_path, settings) as api:
        api.child.send_signal(signal.SIGTERM)

        async def draining() -> bool:
            return await api.ready() == "draining"

        await until(draining)
        assert (await api.http.get(f"{BASE}/chats")).status_code == 401
        api.child.send_signal(signal.SIGTERM)
        assert await api.child.wait() == 0


async def test_at_sigint_it_stops_at_once(tmp_path: Path, settings: dict[str, Any]) -> None:
    async with started(tmp_path, settings) as api:
        api.child.send_signal(signal.SIGINT)
        assert await api.child.wait() == 0


@pytest.fixture
def token(chatd: Chatd) -> str:
    """Of a user who has a model to chat with."""
    address = ("--provider", "openai-compat", "--base-url", "http://127.0.0.1:9/v1")
    chatd("admin", "create-model", "--model", "m", *address)
    return chatd("admin", "create-user", "ada", "--token").stdout.strip()


async def test_streams_end_when_it_leaves(
    tmp_path: Path, settings: dict[str, Any], token: str
) -> None:
    async with started(tmp_path, settings) as api:
        api.http.headers["Authorization"] = f"Bearer {token}"
        body = {"content": [{"type": "text", "text": "hi"}]}
        chat = (await api.http.post(f"{BASE}/chats", json=body)).json()["id"]
        async with api.http.stream("GET", f"{BASE}/chats/{chat}/stream") as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            received = b""
            async for chunk in answer.aiter_bytes():
                if b"event: message\n" in chunk:
                    api.child.send_signal(signal.SIGTERM)
                received += chunk
        assert received.startswith(b": \n\n")
        assert b"event: message\n" in received


async def test_a_message_can_be_answered_with_its_events(
    tmp_path: Path, settings: dict[str, Any], token: str
) -> None:
    headers = {
        "Authorization": f"Bearer {token}",
        "Accept": "text/event-stream",
        "Idempotency-Key": "once",
    }
    body = {"content": [{"type": "text", "text": "hi"}]}
    turns: list[Any] = []
    async with started(tmp_path, settings) as api:
        for _ in range(2):
            async with api.http.stream(
                "POST", f"{BASE}/chats", json=body, headers=headers
            ) as answer:
                assert answer.status_code == 201
                assert answer.headers["content-type"].startswith("text/event-stream")
                assert "x-request-id" in answer.headers
                lines = answer.aiter_lines()
                found = [await anext(lines) for _ in range(5)]
            assert found[3] == "event: turn"
            turns.append(json.loads(found[4].removeprefix("data: "))["turn"]["id"])
        assert turns[0] == turns[1]


def test_a_port_that_is_taken_is_said(
    settings: dict[str, Any], chatd: Chatd, valkey: Valkey
) -> None:
    words = ("api", "--port", "0", "--metrics-port", str(valkey.port))
    result = chatd(*words, fails=True, **settings)
    assert "in use" in result.stderr
    assert "database" not in result.stderr


def test_a_descriptor_that_is_no_socket_is_said() -> None:
    result = CliRunner().invoke(app, ["api", "--fd", "0"])
    assert result.exit_code == 2
    assert "0 is no socket" in result.stderr
