"""`chatd admin rotate-keys` and `list-keys`, as an operator types them."""

import base64
import re

import pytest

from chatd.store import processes
from chatd.store.db import Database
from tests.cli.commands import KEY, Chatd
from tests.cli.test_admin import in_database, rows

NEW = base64.b64encode(b"n" * 32).decode()
OLD_RING, ROTATING, NEW_RING = f"k1:{KEY}", f"k2:{NEW},k1:{KEY}", f"k2:{NEW}"
SECRET = "sk-canary-5c1a9e7d3b"


@pytest.fixture
def secret(chatd: Chatd) -> None:
    """One value, encrypted with the key k1."""
    chatd("admin", "create-model", "--model", "m", CHATD_MODEL_API_KEY=SECRET)


def key_ids(url: str) -> list[str]:
    return [row["api_key_key_id"] for row in rows(url, "SELECT * FROM model_providers")]


@pytest.mark.usefixtures("secret")
def test_a_dry_run_shows_what_there_is_to_do_and_does_nothing(
    chatd: Chatd, database_url: str
) -> None:
    shown = chatd("admin", "rotate-keys", "--dry-run", CHATD_ENCRYPTION_KEYS=ROTATING)
    assert re.search(r"model_providers\.api_key +│ k1 +│ 1 +│ yes", shown.stdout)
    assert "1 values are not encrypted with k2" in shown.stderr
    assert key_ids(database_url) == ["k1"]


@pytest.mark.usefixtures("secret")
def test_rotation_from_key_to_key(chatd: Chatd, database_url: str) -> None:
    done = chatd("admin", "rotate-keys", CHATD_ENCRYPTION_KEYS=ROTATING)
    assert "Encrypted 1 values with k2." in done.stderr
    assert "1/1" in done.stderr
    assert done.stdout == ""
    assert key_ids(database_url) == ["k2"]
    again = chatd("admin", "rotate-keys", CHATD_ENCRYPTION_KEYS=NEW_RING)
    assert "Encrypted 0 values with k2." in again.stderr
    entries = rows(database_url, "SELECT * FROM audit_log WHERE target_type = 'encryption_key'")
    assert {(entry["action"], entry["target_id"]) for entry in entries} == {("rotate", "k2")}
    listed = chatd("admin", "list-keys", CHATD_ENCRYPTION_KEYS=ROTATING)
    assert re.search(r"k2 +│ [0-9a-f]{16} +│ .*│ 1 +│ yes, writes", listed.stdout)
    assert re.search(r"k1 +│ [0-9a-f]{16} +│ .*│ 0 +│ yes +", listed.stdout)
    for output in (done.output, listed.output):
        assert SECRET not in output
        assert KEY not in output
        assert NEW not in output


@pytest.mark.usefixtures("secret")
def test_a_value_of_an_unknown_key_is_told_with_exit_code_1(
    chatd: Chatd, database_url: str
) -> None:
    told = chatd("admin", "rotate-keys", CHATD_ENCRYPTION_KEYS=NEW_RING, fails=True)
    assert "needs the encryption key 'k1', which is not set" in told.stderr
    assert "Traceback" not in told.output
    assert key_ids(database_url) == ["k1"]
    listed = chatd("admin", "list-keys", CHATD_ENCRYPTION_KEYS=NEW_RING)
    assert re.search(r"k1 .*│ 1 +│ no", listed.stdout)


@pytest.mark.usefixtures("secret")
def test_a_process_that_lacks_the_key_is_named(chatd: Chatd, database_url: str) -> None:
    async def beat(db: Database) -> None:
        await processes.beat(db, "host:7:aa", "api", "1", capacity=0, running=0, key_ids=["k1"])

    in_database(database_url, beat)
    told = chatd("admin", "rotate-keys", CHATD_ENCRYPTION_KEYS=ROTATING, fails=True)
    assert "lack the key k2: api host:7:aa" in told.stderr
    assert key_ids(database_url) == ["k1"]


@pytest.mark.parametrize("command", ["rotate-keys", "list-keys"])
@pytest.mark.usefixtures("secret")
def test_another_key_under_a_known_id_is_refused(chatd: Chatd, command: str) -> None:
    told = chatd("admin", command, CHATD_ENCRYPTION_KEYS=f"k1:{NEW}", fails=True)
    assert "another key under the id k1" in told.stderr


@pytest.mark.usefixtures("secret")
def test_no_secret_is_written_with_another_key_under_a_known_id(
    chatd: Chatd, database_url: str
) -> None:
    told = chatd(
        *("admin", "create-model", "--model", "n", "--provider-name", "second"),
        CHATD_MODEL_API_KEY=SECRET,
        CHATD_ENCRYPTION_KEYS=f"k1:{NEW}",
        fails=True,
    )
    assert "another key under the id k1" in told.stderr
    assert key_ids(database_url) == ["k1"]


def test_a_typo_in_a_command_that_only_looks_takes_no_id(chatd: Chatd, database_url: str) -> None:
    for words in (["list-keys"], ["rotate-keys", "--dry-run"]):
        chatd("admin", *words, CHATD_ENCRYPTION_KEYS=f"k1:{NEW}")
    assert rows(database_url, "SELECT * FROM encryption_keys") == []
    chatd("admin", "create-model", "--model", "m", CHATD_MODEL_API_KEY=SECRET)
    assert key_ids(database_url) == ["k1"]


@pytest.mark.parametrize("command", ["api", "worker"])
@pytest.mark.usefixtures("secret")
def test_no_process_starts_with_another_key_under_a_known_id(chatd: Chatd, command: str) -> None:
    told = chatd(
        command,
        CHATD_ENCRYPTION_KEYS=f"k1:{NEW}",
        CHATD_REDIS_URL="redis://127.0.0.1:9/0",
        fails=True,
    )
    assert "another key under the id k1" in told.stderr
    assert "Traceback" not in told.output
