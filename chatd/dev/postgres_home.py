"""Where an embedded PostgreSQL lives: its folder, its password, and who runs it.

PostgreSQL refuses to run as root, so root runs it as `nobody`. That user may be locked out of the
programs (a virtual environment below a 0700 home) and of the state folder; both then move to where
it can reach them. Nobody's permissions are changed but those of folders made here.
"""

import os
import shutil
import signal
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from chatd.dev.binaries import PostgresPrograms
from chatd.dev.children import Spec, run_to_end, works_as
from chatd.dev.secret_file import password_in, write_secret

USER = "chatd"
# The environment of whoever starts us holds secrets; messages stay English for us to read.
_ENV = {"PATH": os.defpath, "LC_ALL": "C"}
# A socket's path has a fixed size in the kernel: 104 bytes on macOS.
_LONGEST_SOCKET_FOLDER = 103 - len("/.s.PGSQL.65535")


@dataclass(frozen=True)
class Home:
    folder: Path
    log: Path
    programs: PostgresPrograms
    password: str
    # None: the user who runs us.
    user: str | None

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def sockets(self) -> Path | None:
        folder = self.folder / "run"
        return folder if len(os.fsencode(folder)) <= _LONGEST_SOCKET_FOLDER else None

    def spec(self, *command: str | Path, keep_open: tuple[int, ...]) -> Spec:
        """A child that runs one of the programs; SIGINT is PostgreSQL's orderly, fast stop."""
        return Spec(
            command,
            log=self.log,
            stop_signal=signal.SIGINT,
            cwd=self.folder,
            user=self.user,
            env=_ENV,
            keep_open=keep_open,
        )


def settle(state: Path, programs: PostgresPrograms) -> Home:
    """Everything but the data: folders, password and programs within reach of who runs them."""
    state.mkdir(parents=True, exist_ok=True)
    user = "nobody" if os.geteuid() == 0 else None
    folder = state
    if user is not None:
        state.chmod(0o711)
        folder = _folder_for(user, state)
        programs = _programs_for(user, programs, folder)
    password = _password(state, folder / "data")
    home = Home(folder, state / "postgres.log", programs, password, user)
    _private_folder(folder / "run", user)
    return home


async def create_data(home: Home, lock: int) -> None:
    """initdb, all or nothing: the folder gets its name when it is complete."""
    fresh = home.folder / "data.new"
    shutil.rmtree(fresh, ignore_errors=True)
    _private_folder(fresh, home.user)
    password_file = home.folder / "password.new"
    write_secret(password_file, home.password, owner=home.user)
    try:
        initdb = home.spec(
            home.programs.initdb,
            f"--pgdata={fresh}",
            f"--username={USER}",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--no-locale",
            "--encoding=UTF8",
            "--no-sync",
            keep_open=(lock,),
        )
        await run_to_end(replace(initdb, stop_signal=signal.SIGTERM))
    finally:
        password_file.unlink()
    fresh.rename(home.data)


def _folder_for(user: str, state: Path) -> Path:
    moved = state / "moved-to"
    if moved.exists():
        return Path(moved.read_text())
    if works_as(user, ["/bin/sh", "-c", 'cd "$1"', "reach", state]):
        return state
    if (state / "data").exists():
        raise PermissionError(f"the user {user} can no longer reach {state / 'data'}")
    parent = next(place for place in ("/var/lib", "/var/tmp") if os.access(place, os.W_OK))
    folder = Path(tempfile.mkdtemp(prefix="chatd-postgres-", dir=parent))
    folder.chmod(0o711)
    moved.write_text(str(folder))
    return folder


def _programs_for(user: str, programs: PostgresPrograms, folder: Path) -> PostgresPrograms:
    if works_as(user, [programs.postgres, "--version"]):
        return programs
    if not programs.bundle:
        raise PermissionError(f"the user {user} cannot run {programs.postgres}")
    built = programs.postgres.stat()
    copy = folder / f"programs-{built.st_size}-{int(built.st_mtime)}"
    if not copy.exists():
        _copy(programs.bundle, copy)
    inside = programs.folder.relative_to(programs.bundle[0].parent)
    return PostgresPrograms(copy / inside)


def _copy(bundle: tuple[Path, ...], copy: Path) -> None:
    partial = copy.with_suffix(".new")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    partial.chmod(0o755)
    unneeded = shutil.ignore_patterns("include", "doc", "__pycache__", "*.a", "*.py")
    for part in bundle:
        if part.exists():
            shutil.copytree(part, partial / part.name, symlinks=True, ignore=unneeded)
    partial.rename(copy)


def _password(state: Path, data: Path) -> str:
    file = state / "password"
    if data.exists() and not file.exists():
        raise FileNotFoundError(f"{file} is gone; without it nobody can open {data}")
    return password_in(file)


def _private_folder(folder: Path, owner: str | None) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    if owner is not None:
        shutil.chown(folder, owner)
