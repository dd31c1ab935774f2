"""Flows under way: once, in time, in the browser that began them."""

import asyncio
from typing import Any

import pytest

from chatd.core.errors import NotFound
from chatd.store import oauth_states
from chatd.store.db import Database
from chatd.store.ids import new_id
from chatd.store.oauth_states import NewState, State, StateKind
from chatd.store.secrets import Tampered
from tests.seed import KEYS, make_server, make_user
from tests.waiting import transaction

DATA: dict[str, Any] = {"verifier": "v" * 43, "scopes": ["read"], "popup": True}


async def begin(db: Database, kind: StateKind = "state", **given: Any) -> NewState:
    usual: dict[str, Any] = {"kind": kind, "data": DATA, "seconds": 60.0, "cookie": "browser"}
    return await oauth_states.create_state(db, KEYS, **usual | given)


async def use(
    db: Database, secret: str, kind: StateKind = "state", cookie: str | None = "browser"
) -> State | None:
    return await oauth_states.use_state(db, KEYS, secret, kind=kind, cookie=cookie)


async def test_a_state_gives_back_what_was_kept_with_it(db: Database) -> None:
    user, server = await make_user(db), await make_server(db)
    made = await begin(db, user_id=user.user_id, server_id=server)
    state = await use(db, made.secret)
    assert state is not None
    assert (state.user_id, state.server_id, state.data) == (user.user_id, server, DATA)
    assert state.expires_at == made.expires_at


async def test_of_twenty_at_once_one_uses_it(db: Database) -> None:
    made = await begin(db)
    used = await asyncio.gather(*(use(db, made.secret) for _ in range(20)))
    assert [state for state in used if state is not None] != []
    assert used.count(None) == 19


async def test_a_state_that_is_over_is_none(db: Database) -> None:
    assert await use(db, (await begin(db, seconds=0.0)).secret) is None
    assert await use(db, "nobody's") is None


@pytest.mark.parametrize("cookie", ["another", "", None])
async def test_another_browser_neither_uses_it_nor_uses_it_up(
    db: Database, cookie: str | None
) -> None:
    made = await begin(db)
    assert await use(db, made.secret, cookie=cookie) is None
    assert await use(db, made.secret) is not None


async def test_a_ticket_is_no_state(db: Database) -> None:
    made = await begin(db, "ticket", cookie=None)
    assert await use(db, made.secret, "state", None) is None
    assert await use(db, made.secret, "ticket", "browser") is None
    assert await use(db, made.secret, "ticket", None) is not None


async def test_a_ticket_belongs_to_the_browser_that_comes_first(db: Database) -> None:
    made = await begin(db, "ticket", cookie=None)
    bound = await asyncio.gather(
        *(
            oauth_states.bind_state(db, made.secret, kind="ticket", cookie=f"browser {number}")
            for number in range(10)
        )
    )
    assert bound.count(True) == 1
    mine = f"browser {bound.index(True)}"
    assert await oauth_states.bind_state(db, made.secret, kind="ticket", cookie=mine)
    assert await use(db, made.secret, "ticket", "another") is None
    assert await use(db, made.secret, "ticket", mine) is not None
    assert not await oauth_states.bind_state(db, made.secret, kind="ticket", cookie=mine)


async def test_looking_does_not_use_it(db: Database) -> None:
    made = await begin(db)
    seen = await oauth_states.read_state(db, KEYS, made.secret, kind="state", cookie="browser")
    assert seen is not None
    assert await use(db, made.secret) == seen


async def test_neither_the_secret_nor_the_data_lies_open(db: Database) -> None:
    made = await begin(db)
    (row,) = await db.fetch("SELECT * FROM oauth_states")
    told = repr(dict(row))
    assert made.secret not in told
    assert DATA["verifier"] not in told
    assert "browser" not in told


async def test_data_of_another_flow_does_not_open(db: Database) -> None:
    first, second = await begin(db), await begin(db, data={"verifier": "another"})
    await db.fetch(
        """UPDATE oauth_states SET data = (
            SELECT data FROM oauth_states ORDER BY created_at LIMIT 1)"""
    )
    assert await use(db, first.secret) is not None
    with pytest.raises(Tampered):
        await use(db, second.secret)


async def test_flows_of_a_server_and_of_a_user_can_be_ended(db: Database) -> None:
    ada, eve, server = await make_user(db), await make_user(db, "eve"), await make_server(db)
    hers = await begin(db, user_id=ada.user_id, server_id=server)
    others = await begin(db, user_id=eve.user_id, server_id=server)
    ended = await oauth_states.end_states(db, server_id=server, user_id=ada.user_id)
    assert ended == 1
    assert await use(db, hers.secret) is None
    assert await use(db, others.secret) is not None
    assert await oauth_states.end_states(db, server_id=new_id()) == 0
    with pytest.raises(ValueError, match="whose"):
        await oauth_states.end_states(db)


async def test_a_flow_that_was_used_is_ended_as_well(db: Database) -> None:
    user, server = await make_user(db), await make_server(db)
    made = await begin(db, user_id=user.user_id, server_id=server)
    used = await use(db, made.secret)
    assert used is not None
    async with db.transaction() as session:
        assert await oauth_states.hold_state(session, used.id)
    assert await oauth_states.end_states(db, user_id=user.user_id) == 1
    async with db.transaction() as session:
        assert not await oauth_states.hold_state(session, used.id)


async def test_ending_waits_for_what_is_held(db: Database, database_url: str) -> None:
    user = await make_user(db)
    used = await use(db, (await begin(db, user_id=user.user_id)).secret)
    assert used is not None
    async with transaction(database_url) as watcher, db.transaction() as session:
        assert await oauth_states.hold_state(session, used.id)
        ending = asyncio.create_task(oauth_states.end_states(db, user_id=user.user_id))
        await watcher.waiting()
        assert not ending.done()
    assert await ending == 1


async def test_ending_finds_what_went_on_while_it_waited(db: Database, database_url: str) -> None:
    user, server = await make_user(db), await make_server(db)
    whose: dict[str, Any] = {"user_id": user.user_id, "server_id": server}
    ticket = await begin(db, "ticket", cookie=None, **whose)
    used = await use(db, ticket.secret, "ticket", None)
    assert used is not None
    async with transaction(database_url) as other, db.transaction() as session:
        assert await oauth_states.hold_state(session, used.id)
        ending = asyncio.create_task(oauth_states.end_states(db, **whose))
        await other.waiting()
        state = await begin(db, after=used.id, **whose)
    assert await ending == 2
    assert await use(db, state.secret) is None


async def test_what_goes_on_from_an_ended_flow_does_not_begin(db: Database) -> None:
    user = await make_user(db)
    ticket = await begin(db, "ticket", cookie=None, user_id=user.user_id)
    used = await use(db, ticket.secret, "ticket", None)
    assert used is not None
    await begin(db, user_id=user.user_id, after=used.id)
    assert await oauth_states.end_states(db, user_id=user.user_id) == 2
    with pytest.raises(NotFound):
        await begin(db, user_id=user.user_id, after=used.id)


async def test_only_what_is_long_over_is_removed(db: Database) -> None:
    await begin(db, seconds=0.0)
    old = await begin(db, seconds=-7200.0)
    kept = await begin(db)
    assert old != kept
    assert await oauth_states.forget_states(db) == 1
    (row,) = await db.fetch("SELECT count(*) AS left FROM oauth_states")
    assert row["left"] == 2
