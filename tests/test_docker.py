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
from chatd.settings import Settings, load
from tests.starting import RUN

ROOT = Path(__file__).resolve().parents[1]
DOCKER = ROOT / "docker"
CHATD = [sys.executable, "-c", RUN]
NAMES = {f"CHATD_{name.upper()}" for name in Settings.model_fields if name != "otel_endpoint"} | {
    "OTEL_EXPORTER_OTLP_ENDPOINT"
}


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
    ran = subprocess.run(command, capture_output=True, timeout=120, check=False)
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
    secret = ("PASSWORD", "KEYS", "SECRET")
    assert not any(example[name] for name in used if any(word in name for word in secret))


@pytest.mark.parametrize("service", ["migrate", "api", "worker"])
def test_every_setting_can_be_given_and_no_other(compose: dict[str, Any], service: str) -> None:
    by_command = {"CHATD_HOST", "CHATD_PORT"}
    assert set(compose["services"][service]["environment"]) == NAMES - by_command
    assert {f"--{name[6:].lower()}" for name in by_command} <= set(
        compose["services"]["api"]["command"]
    )


def test_the_example_means_what_is_not_set_at_all(
    compose: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = compose["services"]["api"]["environment"]
    for name, text in given.items():
        monkeypatch.setenv(name, "k1:" + "A" * 43 if "KEYS" in name else interpolated(text))
    set_here = {"database_url", "redis_url", "encryption_keys", "metrics_host", "metrics_port"}
    settings = load(Settings)
    differ = {
        name
        for name, field in Settings.model_fields.items()
        if getattr(settings, name) != field.default
    }
    assert differ == set_here


def test_the_readme_names_every_setting() -> None:
    readme = (ROOT / "README.md").read_text()
    assert {name for name in NAMES if f"`{name}`" not in readme} == set()


@pytest.mark.parametrize("up", [True, False])
def test_a_workers_health_check_tells_up_from_down(
    compose: dict[str, Any], metrics_port: int, *, up: bool
) -> None:
    _, _, _, code = compose["services"]["worker"]["healthcheck"]["test"]
    port = metrics_port if up else free_port()
    ran = subprocess.run(
        [sys.executable, "-c", code.replace(":9000/", f":{port}/")],
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert (ran.returncode == 0) == up


def test_the_image_runs_as_nobody_special_and_installs_by_hash() -> None:
    lines = (DOCKER / "Dockerfile").read_text().splitlines()
    last_stage = lines[max(i for i, line in enumerate(lines) if line.startswith("FROM")) :]
    assert any(line.startswith("USER ") and "root" not in line for line in last_stage)
    installs = [line for line in lines if "pip install" in line]
    assert all("--require-hashes" in line or "--no-deps" in line for line in installs)
