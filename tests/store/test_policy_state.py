"""Policy moves: who is told, and who may use what afterwards."""

from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from chatd.core.errors import NotFound, Unavailable
from chatd.store import models, oauth_tokens, policy_state
from chatd.store.policy_state import locked_out, read_state, servers_in_use
from tests.seed import Seed, change_server, make_server, make_user
from tests.store.granting import connect
from tests.waiting import transaction


@pytest.fixture
def told(seed: Seed) -> list[bool]:
    """One entry for each time that everybody was told."""
    calls: list[bool] = []
    seed.db.on_policy = lambda: calls.append(True)
    return calls


async def test_everybody_is_told_after_the_commit_not_before(seed: Seed, told: list[bool]) -> None:
    async with seed.db.transaction() as session:
        version = await policy_state.bump(session)
        assert (told, (await read_state(seed.db)).version) == ([], version - 1)
    assert (told, (await read_state(seed.db)).version) == ([True], version)


async def test_nobody_is_told_of_what_did_not_happen(seed: Seed, told: list[bool]) -> None:
    async def fail() -> None:
        async with seed.db.transaction() as session:
            await policy_state.bump(session)
            await models.get_config(session, uuid4())

    with pytest.raises(NotFound):
        await fail()
    assert told == []


async def test_a_change_that_somebody_holds_up_is_given_up_and_can_be_repeated(
    seed: Seed, database_url: str
) -> None:
    """Meanwhile no call could leave: each waits for the change's policy version."""

    async def rename() -> None:
        async with seed.db.transaction() as session:
            await policy_state.bump(session)
            connection = await session.connection()
            await connection.execute(text("UPDATE users SET name = 'Ada'"))

    before = await read_state(seed.db)
    async with transaction(database_url) as holder:
        await holder.execute("SELECT 1 FROM users FOR UPDATE")
        with pytest.raises(Unavailable, match="under way") as refused:
            await rename()
        assert refused.value.headers
    assert await read_state(seed.db) == before
    await rename()
    assert (await read_state(seed.db)).version == before.version + 1


async def test_nobody_is_told_of_what_policy_does_not_read(seed: Seed, told: list[bool]) -> None:
    async with seed.db.transaction() as session:
        await models.get_config(session, seed.model_id)
    assert told == []


async def test_disabled_and_deleted_servers_are_not_in_use(seed: Seed) -> None:
    one, two, three = [await make_server(seed.db, slug) for slug in ("one", "two", "three")]
    await change_server(seed.db, one, "one", enabled=False)
    await seed.db.fetch("DELETE FROM mcp_server_configs WHERE id = $1", two)
    assert await servers_in_use(seed.db) == {three: 1}


async def join(seed: Seed, server_id: UUID, user_id: UUID) -> UUID:
    """Restricts the server to a new group with this member."""
    group_id = uuid4()
    for sql, args in (
        ("INSERT INTO groups (id, name, description) VALUES ($1, 'g', '')", (group_id,)),
        ("INSERT INTO group_members (group_id, user_id) VALUES ($1, $2)", (group_id, user_id)),
        ("INSERT INTO mcp_server_groups VALUES ($2, $1)", (group_id, server_id)),
        ("UPDATE mcp_server_configs SET access = 'groups' WHERE id = $1", (server_id,)),
    ):
        await seed.db.fetch(sql, *args)
    return group_id


async def test_who_left_a_group_or_is_suspended_is_locked_out(seed: Seed) -> None:
    open_to_all, restricted = [await make_server(seed.db, slug) for slug in ("open", "restricted")]
    ada, eve = seed.actor.user_id, (await make_user(seed.db, "eve")).user_id
    gone = uuid4()
    await join(seed, restricted, ada)
    assert await locked_out(seed.db, []) == set()
    assert await locked_out(seed.db, [ada, eve]) == {(restricted, eve)}
    assert await locked_out(seed.db, [gone]) == {(restricted, gone), (open_to_all, gone)}
    await seed.db.fetch("DELETE FROM group_members")
    assert await locked_out(seed.db, [ada]) == {(restricted, ada)}
    await seed.db.fetch("UPDATE users SET suspended = true WHERE id = $1", eve)
    assert await locked_out(seed.db, [eve]) == {(restricted, eve), (open_to_all, eve)}


@pytest.mark.parametrize("auth_type", ["oauth2", "user_oidc"])
async def test_who_has_no_account_at_a_server_is_locked_out_of_it(
    seed: Seed, auth_type: str
) -> None:
    db, ada = seed.db, seed.actor.user_id
    eve = (await make_user(db, "eve")).user_id
    server = await make_server(db, auth_type=auth_type)
    granted_for = server if auth_type == "oauth2" else None
    assert await locked_out(db, [ada]) == {(server, ada)}
    await connect(db, ada, granted_for)
    assert await locked_out(db, [ada, eve]) == {(server, eve)}
    async with db.transaction() as session:
        assert await oauth_tokens.delete_token(session, server_id=granted_for, user_id=ada)
    assert await locked_out(db, [ada]) == {(server, ada)}
