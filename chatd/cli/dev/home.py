"""The data directory of `chatd dev`: one owner at a time, and files only that owner may read."""

import base64
import os
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson
from pydantic import SecretStr

from chatd.dev.lock import hold
from chatd.dev.secret_file import write_secret

LEFTOVERS_S = 15
"""How long what a killed owner left behind may take to end."""


@dataclass(frozen=True, slots=True)
class Description:
    """What `dev.json` says: a contract with whoever drives this from outside."""

    url: str
    admin_token: str
    member_token: str
    database_url: str
    redis_url: str
    model_url: str
    demo_mcp_url: str


@dataclass(frozen=True, slots=True)
class Home:
    folder: Path
    lock: int
    """A descriptor that our processes keep open: who gets its lock knows that they are gone."""

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    def encryption_keys(self) -> SecretStr:
        """A key for the secrets in the database, made at the first start."""
        file = self.folder / "encryption-keys"
        if not file.exists():
            write_secret(file, f"dev:{base64.b64encode(secrets.token_bytes(32)).decode()}")
        return SecretStr(file.read_text())

    def read_tokens(self) -> dict[str, str]:
        """Token by username: the database has only their hashes."""
        file = self.folder / "tokens.json"
        return orjson.loads(file.read_bytes()) if file.exists() else {}

    def write_tokens(self, tokens: dict[str, str]) -> None:
        write_secret(self.folder / "tokens.json", orjson.dumps(tokens).decode())

    def describe(self, description: Description) -> None:
        """Write `dev.json`, whole or not at all."""
        partial = self.folder / "dev.json.new"
        write_secret(partial, orjson.dumps(asdict(description)).decode() + "\n")
        partial.rename(self.folder / "dev.json")

    def forget(self) -> None:
        """Remove `dev.json`: nothing it says is true any more."""
        (self.folder / "dev.json").unlink(missing_ok=True)


@asynccontextmanager
async def occupy(folder: Path) -> AsyncGenerator[Home]:
    """Own the directory until the end of the block. Raises `InUse`."""
    os.makedirs(folder / "logs", exist_ok=True)
    async with hold(folder / "dev.lock", within=0.5):
        Home(folder, lock=-1).forget()
        async with hold(folder / "processes.lock", within=LEFTOVERS_S) as lock:
            home = Home(folder, lock)
            try:
                yield home
            finally:
                home.forget()
