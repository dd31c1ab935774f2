"""`chatd admin`: users, tokens and models."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from redis import Redis

from chatd.core.chats import Actor
from chatd.dev.valkey import Valkey
from chatd.queue import POLICY
from chatd.store import tokens
from chatd.store.db import Database
from tests.cli.commands import Chatd

TOKEN = re.compile(r"chatd_[\w-]{43}\n")


def in_database(url: str, work: Callable[[Database], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        db = Database(url, pool_size=1)
        try:
            return await work(db)
        finally:
            await db.close()

    return asyncio.run(run())


def holder(url: str, token: str) -> Actor | None:
    sha256 = tokens.sha256(token.strip())
    return in_database(url, partial(tokens.authenticate, token_sha256=sha256))


def rows(url: str, sql: str) -> list[Any]:
    return in_database(url, partial(Database.fetch, sql=sql))


def test_a_users_first_token_stands_alone_on_stdout(chatd: Chatd, database_url: str) -> None:
    result = chatd("admin", "create-user", "ada", "--role", "admin", "--token")
    assert TOKEN.fullmatch(result.stdout)
    assert "Created the admin ada" in result.stderr
    actor = holder(database_url, result.stdout)
    assert actor is not None
    assert actor.role == "admin"


def test_without_token_stdout_is_empty(chatd: Chatd) -> None:
    assert chatd("admin", "create-user", "ada").stdout == ""


def test_users_are_listed(chatd: Chatd) -> None:
    chatd("admin", "create-user", "ada", "--role", "admin", "--name", "Ada Lovelace")
    chatd("admin", "create-user", "max")
    shown = chatd("admin", "list-users").stdout
    assert re.search(r"ada +│ Ada Lovelace +│ admin", shown)
    assert re.search(r"max +│ max +│ member", shown)


def test_a_token_is_created_listed_and_revoked(chatd: Chatd, database_url: str) -> None:
    chatd("admin", "create-user", "ada")
    made = chatd("admin", "create-token", "ada", "--name", "laptop", "--days", "7")
    assert TOKEN.fullmatch(made.stdout)
    assert holder(database_url, made.stdout) is not None
    listed = chatd("admin", "list-tokens", "ada").stdout
    assert re.search(r"laptop.*valid until", listed)
    assert made.stdout.strip() not in listed
    found = re.search(r"[0-9a-f-]{36}", listed)
    assert found is not None
    chatd("admin", "revoke-token", found[0])
    assert holder(database_url, made.stdout) is None
    assert "revoked" in chatd("admin", "list-tokens", "ada").stdout
    chatd("admin", "revoke-token", found[0])
    sql = """SELECT l.before = jsonb_build_object('user_id', u.id) AS told
        FROM audit_log l, users u WHERE l.action = 'revoke'"""
    assert [row["told"] for row in rows(database_url, sql)] == [True]


def test_a_token_can_live_for_ever(chatd: Chatd) -> None:
    chatd("admin", "create-user", "ada")
    assert "valid for ever" in chatd("admin", "create-token", "ada", "--days", "0").stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("create-user", "ada"), "A user called ada exists."),
        (("create-user", "Not Good"), "Invalid username."),
        (("create-token", "nobody"), "There is no user called nobody."),
        (("revoke-token", "01a1fab5-c2cb-7173-874c-35bf875269c4"), "There is no such token."),
        (("create-model", "--model", "m"), "An API key is needed."),
        (("create-model", "--model", "m", "--context-limit", "0"), "context_limit"),
        (
            ("create-model", "--model", "m", "--provider", "openai-compat"),
            "An openai-compat provider needs a base_url.",
        ),
    ],
)
def test_what_is_wrong_is_said_in_a_line(chatd: Chatd, words: tuple[str, ...], said: str) -> None:
    chatd("admin", "create-user", "ada")
    result = chatd("admin", *words, fails=True)
    assert said in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""


def test_a_model_is_made_with_its_provider(chatd: Chatd, database_url: str) -> None:
    words = ("admin", "create-model", "--model", "gpt", "--api-key-stdin", "--default")
    first = chatd(*words, stdin="sk-from-stdin\n")
    second = chatd(
        "admin", "create-model", "--model", "mini", CHATD_MODEL_API_KEY="sk-from-environment"
    )
    assert "sk-" not in first.output + second.output
    assert re.fullmatch(r"[0-9a-f-]{36}\n", first.stdout)
    configs = rows(database_url, "SELECT id, model, is_default FROM model_configs ORDER BY model")
    assert [(row["model"], row["is_default"]) for row in configs] == [
        ("gpt", True),
        ("mini", False),
    ]
    assert str(configs[0]["id"]) == first.stdout.strip()
    providers = rows(database_url, "SELECT p::text AS t, api_key FROM model_providers p")
    assert len(providers) == 1
    assert providers[0]["api_key"] is not None
    assert "sk-from" not in providers[0]["t"]


def test_a_model_without_key_at_an_address(chatd: Chatd, database_url: str) -> None:
    address = ("--provider", "openai-compat", "--base-url", "http://127.0.0.1:9/v1")
    chatd("admin", "create-model", "--model", "m", *address, "--provider-name", "house")
    chatd("admin", "create-model", "--model", "n", *address, "--provider-name", "house")
    (provider,) = rows(database_url, "SELECT * FROM model_providers")
    assert (provider["display_name"], provider["base_url"]) == ("house", "http://127.0.0.1:9/v1")
    assert provider["api_key"] is None


def test_what_is_done_here_is_audited(chatd: Chatd, database_url: str) -> None:
    chatd("admin", "create-user", "ada", "--token")
    entries = rows(database_url, "SELECT * FROM audit_log ORDER BY id")
    assert [(row["action"], row["target_type"], row["actor_id"]) for row in entries] == [
        ("create", "user", None),
        ("create", "api_token", None),
    ]


def test_a_missing_setting_is_named(chatd: Chatd) -> None:
    result = chatd("admin", "list-users", fails=True, CHATD_DATABASE_URL="")
    assert result.stderr == "CHATD_DATABASE_URL is not set.\n"


def test_a_database_that_is_away_is_said_without_its_password(chatd: Chatd) -> None:
    url = "postgresql://chatd:very-secret@127.0.0.1:9/chatd"
    result = chatd("admin", "list-users", fails=True, CHATD_DATABASE_URL=url)
    assert "database" in result.stderr
    assert "very-secret" not in result.output
    assert "Traceback" not in result.output


def said(channel: Any) -> Any:
    return channel.get_message(timeout=5)


def test_a_change_of_policy_is_told_to_what_runs(chatd: Chatd, valkey: Valkey) -> None:
    with Redis.from_url(valkey.url) as redis, redis.pubsub() as heard:
        heard.subscribe(POLICY)
        assert said(heard)["type"] == "subscribe"
        words = ("admin", "create-model", "--model", "m", "--api-key-stdin")
        chatd(*words, stdin="sk-key\n", CHATD_REDIS_URL=valkey.url)
        assert said(heard)["channel"] == POLICY.encode()


@pytest.mark.parametrize("url", ["redis://127.0.0.1:9/0", "nonsense"])
def test_without_redis_a_change_is_made_all_the_same(
    chatd: Chatd, database_url: str, url: str
) -> None:
    words = ("admin", "create-model", "--model", "m", "--api-key-stdin")
    chatd(*words, stdin="sk-key\n", CHATD_REDIS_URL=url)
    assert len(rows(database_url, "SELECT 1 FROM model_configs")) == 1
