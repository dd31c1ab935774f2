"""The compose file: valid by the specification, and no command in it that does not exist."""

import json
import re
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from chatd import telemetry
from chatd.dev.ports import free_port
from chatd.settings import Settings
from tests.starting import RUN

ROOT = Path(__file__).resolve().parents[1]
DOCKER = ROOT / "docker"
CHATD = [sys.executable, "-c", RUN]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())


@pytest.fixture
def metrics_port() -> Generator[int]:
    port = free_port()
    stop = telemetry.serve_metrics("127.0.0.1", port)
    yield port
    stop()


def interpolated(text: str) -> str:
    """As compose fills in variables: the default, or a value where one is demanded."""
    text = re.sub(r"\$\{[A-Z_]+:\?\}", "given", text)
    return re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", text)


def test_the_compose_file_follows_the_specification(compose: dict[str, Any]) -> None:
    parsed = PyCompose.from_json(interpolated(json.dumps(compose)))
    assert set(parsed.service_names()) == set(compose["services"])


def test_the_specification_is_really_checked(compose: dict[str, Any]) -> None:
    compose = compose | {"services": {"api": {"image": "chatd", "comand": ["api"]}}}
    with pytest.raises(ValueError, match="comand"):
        PyCompose.from_json(json.dumps(compose))


@pytest.mark.parametrize("service", ["migrate", "api", "worker"])
def test_every_command_is_one_of_ours_with_options_that_exist(
    compose: dict[str, Any], service: str
) -> None:
    command = [*CHATD, *compose["services"][service]["command"], "--help"]
    ran = subprocess.run(command, capture_output=True, timeout=30, check=False)
    assert ran.returncode == 0, ran.stderr


def test_services_that_need_a_schema_wait_for_it(compose: dict[str, Any]) -> None:
    for service in ("api", "worker"):
        waits = compose["services"][service]["depends_on"]
        assert waits["migrate"]["condition"] == "service_completed_successfully"


def test_a_worker_has_longer_to_stop_than_its_turns_have_to_end(compose: dict[str, Any]) -> None:
    grace = Settings.model_fields["drain_grace_seconds"].default
    assert int(compose["services"]["worker"]["stop_grace_period"].rstrip("s")) > grace + 10


def test_every_variable_is_in_the_example_and_no_secret_has_a_value(
    compose: dict[str, Any],
) -> None:
    text = (DOCKER / "compose.yaml").read_text()
    used = set(re.findall(r"\$\{([A-Z_]+)", text))
    lines = [line for line in (DOCKER / "example.env").read_text().splitlines() if "=" in line]
    example = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    assert used == set(example)
    assert not any(example[name] for name in used if "PASSWORD" in name or "KEYS" in name)


def test_the_settings_named_in_it_exist(compose: dict[str, Any]) -> None:
    names = set(compose["services"]["api"]["environment"])
    assert names <= {f"CHATD_{field.upper()}" for field in Settings.model_fields}


@pytest.mark.parametrize("up", [True, False])
def test_a_workers_health_check_tells_up_from_down(
    compose: dict[str, Any], metrics_port: int, *, up: bool
) -> None:
    _, _, _, code = compose["services"]["worker"]["healthcheck"]["test"]
    port = metrics_port if up else free_port()
    ran = subprocess.run(
        [sys.executable, "-c", code.replace(":9000/", f":{port}/")],
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert (ran.returncode == 0) == up


def test_the_image_runs_as_nobody_special_and_installs_by_hash() -> None:
    lines = (DOCKER / "Dockerfile").read_text().splitlines()
    last_stage = lines[max(i for i, line in enumerate(lines) if line.startswith("FROM")) :]
    assert any(line.startswith("USER ") and "root" not in line for line in last_stage)
    installs = [line for line in lines if "pip install" in line]
    assert all("--require-hashes" in line or "--no-deps" in line for line in installs)
