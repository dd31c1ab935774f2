"""`chatd admin`: suspending users, and groups."""

import re
from functools import partial
from typing import Any

from chatd.store.db import Database
from tests.cli.commands import Chatd
from tests.cli.test_admin import holder, in_database, rows
from tests.seed import Seed, make_model, make_user
from tests.store.working import statuses


def test_unknown_names_are_refused(chatd: Chatd, database_url: str) -> None:
    assert "nobody" in chatd("admin", "suspend-user", "nobody", fails=True).output
    chatd("admin", "create-user", "max")
    assert "crew" in chatd("admin", "add-member", "crew", "max", fails=True).output
    chatd("admin", "create-group", "crew")
    assert "nobody" in chatd("admin", "add-member", "crew", "nobody", fails=True).output
    assert "exists" in chatd("admin", "create-group", "crew", fails=True).output
    for name in ("", " crew", "x" * 65, "two\nlines", "a\u200bb"):
        assert "group name" in chatd("admin", "create-group", name, fails=True).output
    assert len(rows(database_url, "SELECT 1 FROM groups")) == 1
    assert rows(database_url, "SELECT 1 FROM group_members") == []


def test_the_last_administrator_is_not_suspended(chatd: Chatd, database_url: str) -> None:
    token = chatd("admin", "create-user", "ada", "--role", "admin", "--token").stdout
    assert "last administrator" in chatd("admin", "suspend-user", "ada", fails=True).output
    assert holder(database_url, token) is not None


def test_a_suspended_user_is_out_until_they_are_activated(chatd: Chatd, database_url: str) -> None:
    token = chatd("admin", "create-user", "max", "--token").stdout
    for _ in range(2):
        chatd("admin", "suspend-user", "max")
        assert holder(database_url, token) is None
    assert re.search(r"max.*yes", chatd("admin", "list-users").stdout)
    chatd("admin", "activate-user", "max")
    assert holder(database_url, token) is not None
    audited = rows(database_url, "SELECT action FROM audit_log WHERE action = 'update'")
    assert len(audited) == 2


def test_their_turns_end(chatd: Chatd, database_url: str) -> None:
    async def begin(db: Database) -> Any:
        seed = Seed(db, await make_user(db, "max"), await make_model(db))
        chat_id = await seed.chat_id()
        await seed.send(chat_id)
        return seed.actor, chat_id

    actor, chat_id = in_database(database_url, begin)
    chatd("admin", "suspend-user", "max")

    async def ended(db: Database) -> list[str]:
        return await statuses(Seed(db, actor, chat_id), chat_id)

    assert in_database(database_url, ended) == ["interrupted", "cancelled"]


def test_a_user_is_given_a_login(chatd: Chatd, database_url: str) -> None:
    chatd("admin", "create-user", "max")
    assert "issuer" in chatd("admin", "link-user", "max", "subject-1", fails=True).output
    words = ["link-user", "max", "subject-1", "--issuer", "https://id.example"]
    chatd("admin", *words)
    assert "belongs to a user already" in chatd("admin", *words, fails=True).output
    (link,) = rows(database_url, "SELECT issuer, subject FROM user_links")
    assert (link["issuer"], link["subject"]) == ("https://id.example", "subject-1")
    audited = rows(database_url, "SELECT action FROM audit_log WHERE target_type = 'user'")
    assert [row["action"] for row in audited] == ["create", "link"]


def test_groups_have_members(chatd: Chatd, database_url: str) -> None:
    chatd("admin", "create-user", "max")
    made = chatd("admin", "create-group", "crew", "--description", "Who is on board.").stdout
    assert re.fullmatch(r"[0-9a-f-]{36}\n", made)
    for _ in range(2):
        chatd("admin", "add-member", "crew", "max")
    listed = chatd("admin", "list-groups").stdout
    assert re.search(r"crew +│ 1 +│ 0 +│ Who is on board\.", listed)
    for _ in range(2):
        chatd("admin", "remove-member", "crew", "max")
    assert re.search(r"crew +│ 0", chatd("admin", "list-groups").stdout)
    audited = rows(database_url, "SELECT action FROM audit_log WHERE target_type = 'group'")
    assert sorted(row["action"] for row in audited) == ["add_member", "create", "remove_member"]


def test_policy_is_read_anew_after_each(chatd: Chatd, database_url: str) -> None:
    version = partial(rows, database_url, "SELECT version FROM policy_state")
    chatd("admin", "create-user", "max")
    chatd("admin", "create-group", "crew")
    for words in (["suspend-user", "max"], ["activate-user", "max"], ["add-member", "crew", "max"]):
        before = version()
        chatd("admin", *words)
        assert version() > before
