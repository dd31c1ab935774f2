"""What is installed: a wheel that brings its migrations, or a link to the checkout."""

import subprocess
import sys
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    quiet = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation")
    command = [sys.executable, "-m", "pip", "wheel", *quiet, "--wheel-dir", folder, ROOT]
    subprocess.run(command, check=True)
    (built,) = folder.glob("chatd-*.whl")
    return built


def test_it_holds_the_program_and_its_migrations(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"chatd", "workers"}
    ours = {f"chatd/_alembic/versions/{path.name}" for path in ROOT.glob("alembic/versions/*.py")}
    assert ours | {"chatd/_alembic/env.py"} <= set(names)


def test_it_migrates_without_a_checkout(wheel: Path, tmp_path: Path, empty_database: str) -> None:
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(tmp_path)
    migrated = subprocess.run(
        [sys.executable, "-P", "-c", "from chatd.cli.main import app; app()", "migrate"],
        env={"PYTHONPATH": str(tmp_path), "CHATD_DATABASE_URL": empty_database},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert migrated.stdout.startswith("The database went from no revision to "), migrated.stderr


def test_an_editable_install_copies_nothing_that_could_go_stale() -> None:
    files = distribution("chatd").files
    assert files is not None
    assert not [file for file in files if file.parts[0] in {"chatd", "workers", "alembic"}]
