"""`chatd dev` as a newcomer meets it: one command, and everything runs."""

import asyncio
import signal
import stat
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psutil
import pytest

from chatd.dev.ports import listen
from chatd.dev.served import Served
from chatd.dev.stack import start_model
from chatd.dev.valkey import Valkey
from tests.cli.running import Dev, run

PLANS = {"allow_in_plan_mode": True}
"""What an administrator changes."""


def texts(events: Sequence[dict[str, Any]]) -> str:
    """What the model answered, as it was stored."""
    messages = [event["message"] for event in events if event.get("type") == "message"]
    parts = [part for message in messages for part in message["content"]]
    return "".join(part["text"] for part in parts if part["type"] == "text")


def modes(folder: Path) -> dict[str, str]:
    return {
        file.name: stat.filemode(file.stat().st_mode)
        for file in folder.iterdir()
        if file.suffix == ".json" or file.name == "encryption-keys"
    }


@pytest.fixture
def data(services_folder: Path) -> Path:
    return services_folder / f"dev-{uuid4().hex}"


@pytest.fixture
def other_model(data: Path) -> Generator[Served]:
    served = asyncio.run(start_model(data / "other"))
    yield served
    asyncio.run(served.stop())


def test_it_describes_itself_to_its_owner_only(shared_dev: Dev) -> None:
    assert list(shared_dev.described()) == [
        "url",
        "admin_token",
        "member_token",
        "database_url",
        "redis_url",
        "model_url",
        "demo_mcp_url",
    ]
    assert modes(shared_dev.data) == dict.fromkeys(
        ("dev.json", "tokens.json", "encryption-keys"), "-rw-------"
    )


def test_what_it_printed_is_enough_to_begin(shared_dev: Dev) -> None:
    printed = "".join(shared_dev.said)
    for name in ("url", "admin_token", "member_token", "model_url", "demo_mcp_url"):
        assert shared_dev.described()[name] in printed
    assert "curl -N" in printed


def test_a_turn_uses_a_tool_of_the_demo_server(shared_dev: Dev) -> None:
    events = shared_dev.ask('/call demo__add {"a":2,"b":3}\n/echo')
    assert texts(events) == "5"
    assert events[-1]["status"] == "completed"


def test_the_demo_server_is_on_by_default_but_not_in_plan_mode(shared_dev: Dev) -> None:
    with shared_dev.http(admin=True) as http:
        (server,) = http.get("/mcp/servers").json()
    assert server["slug"] == "demo"
    assert (server["availability"], server["enabled"]) == ("default_on", True)
    assert not server["allow_in_plan_mode"]
    assert "demo__" not in texts(shared_dev.ask("/tools", plan_mode="plan"))


def test_only_the_administrators_token_may_administer(shared_dev: Dev) -> None:
    with shared_dev.http() as member, shared_dev.http(admin=True) as admin:
        assert member.get("/chats/providers").status_code == 403
        assert admin.get("/chats/providers").status_code == 200


def test_api_and_workers_are_processes_with_a_name(shared_dev: Dev) -> None:
    assert len(shared_dev.processes("/chatd api --fd")) == 1
    assert len(shared_dev.processes("/chatd worker")) == 1


def test_no_secret_is_on_a_command_line(shared_dev: Dev) -> None:
    described = shared_dev.described()
    passwords = [urlsplit(described[f"{name}_url"]).password for name in ("database", "redis")]
    secrets = [described["admin_token"], described["member_token"], *passwords]
    assert all(secrets)
    lines = " ".join(" ".join(each.cmdline()) for each in shared_dev.descendants())
    assert not [secret for secret in secrets if str(secret) in lines]


def test_a_second_one_in_the_same_folder_is_refused(shared_dev: Dev) -> None:
    second = run("dev", "--port", "0", "--data-dir", shared_dev.data)
    assert second.returncode == 1
    assert "Another `chatd dev` runs on" in second.stderr
    assert (shared_dev.data / "dev.json").exists()


def test_a_taken_port_is_named(data: Path) -> None:
    with listen() as taken:
        port = taken.getsockname()[1]
        refused = run("dev", "--port", str(port), "--data-dir", data)
    assert refused.returncode == 1
    assert f"Port {port} cannot be used" in refused.stderr
    assert not (data / "postgres").exists()


def test_a_crashed_worker_is_started_again(shared_dev: Dev) -> None:
    (worker,) = shared_dev.processes("/chatd worker")
    worker.kill()
    shared_dev.wait_for("worker-1 ended by signal 9; starting it again")
    assert texts(shared_dev.ask("/say still here")) == "still here"


def test_a_signal_stops_everything_and_the_next_start_finds_it_again(data: Path) -> None:
    with Dev.started(data, "--workers", "2") as dev:
        assert len(dev.processes("/chatd worker")) == 2
        first, chat = dev.described(), dev.ask("/say before")[0]["id"]
        with dev.http(admin=True) as admin:
            change = admin.patch(f"/mcp/servers/{demo(dev)['id']}", json=PLANS)
            assert change.is_success, change.text
        assert dev.stop(signal.SIGTERM) == 0
    assert not (data / "dev.json").exists()
    with Dev.started(data) as dev:
        second = dev.described()
        with dev.http() as http:
            messages = http.get(f"/chats/{chat}/messages").json()["messages"]
        assert demo(dev) == demo(dev) | PLANS | {"url": second["demo_mcp_url"]}
        assert texts(dev.ask('/call demo__add {"a":2,"b":3}\n/echo')) == "5"
        assert dev.stop(signal.SIGINT) == 0
    assert not (data / "dev.json").exists()
    assert second["member_token"] == first["member_token"]
    assert [message["role"] for message in messages] == ["assistant", "user"]


def demo(dev: Dev) -> dict[str, Any]:
    """The demo server's config."""
    with dev.http(admin=True) as http:
        (server,) = http.get("/mcp/servers").json()
    return server


def test_after_a_kill_nothing_is_left_and_a_real_model_may_take_over(
    data: Path, other_model: Served
) -> None:
    with Dev.started(data) as dev:
        descendants = dev.descendants()
        dev.process.kill()
    elsewhere = {"OPENAI_BASE_URL": other_model.url, "OPENAI_MODEL": "scripted-model"}
    # It does not trip over those that are still about to end.
    with Dev.started(data, OPENAI_API_KEY="any", **elsewhere) as dev:
        _, alive = psutil.wait_procs(descendants, timeout=20)
        assert alive == []
        assert dev.described()["model_url"] == other_model.url
        with dev.http() as http:
            (provider,) = http.get("/chats/models").json()["providers"]
        (model,) = provider["models"]
        assert provider["display_name"] == "OPENAI_BASE_URL"
        assert model["is_default"]
        assert texts(dev.ask("/say from elsewhere")) == "from elsewhere"
    with Dev.started(data) as dev:
        assert texts(dev.ask("/say from here")) == "from here"


def test_services_that_have_a_url_are_not_started(
    data: Path, environment: dict[str, str], valkey: Valkey
) -> None:
    with Dev.started(data, CHATD_REDIS_URL=valkey.url, **environment) as dev:
        assert dev.processes("valkey-server") == dev.processes("bin/postgres") == []
        assert dev.described()["database_url"] == environment["CHATD_DATABASE_URL"]
