"""Servers that want an account of the user: turns that wait for it, and those that do without."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any
from uuid import UUID

import pytest

from chatd.answering import Answers
from chatd.core.accounts import AUTH_REQUIRED
from chatd.core.chats import ChatPatch
from chatd.core.errors import Conflict
from chatd.core.work import Claim
from chatd.store.accounts import answer_connected, find_connected, find_pointless
from chatd.store.editing import patch_chat
from chatd.store.items import expire_item, find_overdue
from chatd.store.policy_state import read_state
from chatd.store.queueing import interrupt_chat
from chatd.turn import calls
from chatd.turn.deps import Control
from chatd.turn.run import run_turn
from tests.credentials.accounts import keep, make_oauth_server
from tests.credentials.guarded import Guarded
from tests.credentials.rotating import Rotating, running as answering
from tests.mcp.peer import ADD, Peer, result, running
from tests.outbound.raw_server import Exchange
from tests.seed import change_server, make_group, make_server, make_user
from tests.turn.bench import Bench, call

OK = {"content": [{"type": "text", "text": "ok"}]}
ADD_TO_NOTION = "/call notion__add {}"


@pytest.fixture
async def authority() -> AsyncGenerator[Rotating]:
    async with answering(Rotating(lifetime_s=60)) as server:
        yield server


@pytest.fixture
async def peer(authority: Rotating) -> AsyncGenerator[Guarded]:
    async with running(Guarded(authority)) as guarded:
        yield guarded


@pytest.fixture
async def notion(bench: Bench, authority: Rotating, peer: Guarded) -> UUID:
    """In every new chat, and nobody has connected it."""
    return await add(bench, authority, peer, "notion")


async def add(bench: Bench, authority: Rotating, peer: Guarded, slug: str, **changes: Any) -> UUID:
    changes = {"availability": "default_on", "url": peer.url} | changes
    return await make_oauth_server(bench.seed.db, authority, slug=slug, **changes)


async def grant(bench: Bench, authority: Rotating, server_id: UUID | None, **changes: Any) -> None:
    """The user has connected, or signed in; nobody has been told yet."""
    answer = authority.grant() | changes
    user_id = bench.seed.actor.user_id
    await keep(bench.seed.db, authority, answer, server_id=server_id, user_id=user_id)


async def connect(bench: Bench, authority: Rotating, server_id: UUID | None) -> None:
    """As the callback does it."""
    await grant(bench, authority, server_id)
    await answers(bench).connected(bench.seed.actor.user_id)


def answers(bench: Bench) -> Answers:
    return Answers(bench.seed.db, bench.deps.wakes, bench.deps.publisher)


async def waiting(bench: Bench, *script: str) -> Claim:
    """Runs a turn that would rather wait, for as long as it does."""
    await bench.seed.chat("\n".join(script), on_auth_required="wait")
    claim = await bench.seed.claim()
    await run_turn(bench.deps, claim, Control())
    return claim


async def go_on(bench: Bench, claim: Claim) -> str:
    """Another worker takes the turn up."""
    again = await bench.seed.claim()
    assert again.turn_id == claim.turn_id
    return await run_turn(bench.deps, again, Control())


async def overdue(bench: Bench) -> None:
    await bench.seed.db.fetch("UPDATE open_items SET deadline = clock_timestamp()")
    for item_id, chat_id in await find_overdue(bench.seed.db):
        await expire_item(bench.seed.db, item_id, chat_id)


def link(server_id: UUID) -> str:
    return f"/api/experimental/mcp/servers/{server_id}/oauth2/connect"


async def notices(bench: Bench, claim: Claim) -> list[Any]:
    return (await bench.turn(claim))["notices"]


# --- doing without


async def test_a_turn_goes_on_without_and_its_user_is_told_where_to_connect_once(
    bench: Bench, notion: UUID
) -> None:
    claim = await bench.run(call("add", a=1, b=2), "/say done")
    assert (await bench.turn(claim))["status"] == "completed"
    (notice,) = await notices(bench, claim)
    assert notice == {
        "code": AUTH_REQUIRED,
        "server_id": str(notion),
        "message": "notion: Connect your account to use this server.",
        "connect_url": link(notion),
    }


async def test_who_never_signed_in_is_told_to_and_nobody_waits_for_it(bench: Bench) -> None:
    await make_server(bench.seed.db, "mine", availability="default_on", auth_type="user_oidc")
    claim = await waiting(bench, "/say done")
    (notice,) = await notices(bench, claim)
    assert (notice["code"], notice["connect_url"]) == (AUTH_REQUIRED, None)
    assert "Sign in" in notice["message"]
    assert (await bench.turn(claim))["status"] == "completed"


async def test_a_server_that_refuses_an_administrators_key_is_not_the_users_to_connect(
    bench: Bench, authority: Rotating, peer: Guarded
) -> None:
    await add(bench, authority, peer, "keyed", auth_type="none")
    claim = await waiting(bench, "/say done")
    (notice,) = await notices(bench, claim)
    assert (notice["code"], "connect_url" in notice) == ("auth_required", False)


# --- waiting


async def test_a_turn_that_would_rather_wait_parks_before_anything_is_said(
    bench: Bench, notion: UUID
) -> None:
    claim = await waiting(bench, "/say never")
    turn = await bench.turn(claim)
    assert (turn["status"], turn["notices"]) == ("requires_action", [])
    (item,) = turn["open_items"]
    assert (item["kind"], item["server_id"], item["server"]) == ("auth", str(notion), "notion")
    assert (item["connect_url"], item["reason"]) == (link(notion), "not_connected")
    assert item["message"] == "Connect your account to use this server."
    assert item["deadline"]
    assert "connection_id" not in item
    assert await bench.told(claim) == []


async def test_it_goes_on_by_itself_when_its_user_has_connected(
    bench: Bench, authority: Rotating, peer: Guarded, notion: UUID
) -> None:
    claim = await waiting(bench, ADD_TO_NOTION, "/say done")
    await connect(bench, authority, notion)
    assert (await bench.turn(claim))["status"] == "pending"
    assert await go_on(bench, claim) == "completed"
    assert await bench.told(claim) == ["notion__add({})", "-> ok", "done"]
    assert all(bearer.startswith("Bearer canary-") for bearer in peer.bearers)
    assert await notices(bench, claim) == []
    await bench.complete(claim)


async def test_it_waits_for_the_last_of_several(
    bench: Bench, authority: Rotating, peer: Guarded, notion: UUID
) -> None:
    linear = await add(bench, authority, peer, "linear")
    claim = await waiting(bench, "/say done")
    assert len((await bench.turn(claim))["open_items"]) == 2
    await connect(bench, authority, notion)
    (item,) = (await bench.turn(claim))["open_items"]
    assert item["server"] == "linear"
    await connect(bench, authority, linear)
    assert await go_on(bench, claim) == "completed"


async def test_a_sweeper_sees_a_connection_that_nobody_told_of(
    bench: Bench, authority: Rotating, notion: UUID
) -> None:
    claim = await waiting(bench, "/say done")
    assert await find_connected(bench.seed.db) == []
    await grant(bench, authority, notion)
    ((item_id, chat_id),) = await find_connected(bench.seed.db)
    assert await answer_connected(bench.seed.db, item_id, chat_id) is not None
    assert await answer_connected(bench.seed.db, item_id, chat_id) is None
    assert await go_on(bench, claim) == "completed"


async def test_somebody_elses_connection_is_no_answer(
    bench: Bench, authority: Rotating, notion: UUID
) -> None:
    await waiting(bench, "/say done")
    eve = await make_user(bench.seed.db, "eve")
    grant = authority.grant()
    await keep(bench.seed.db, authority, grant, server_id=notion, user_id=eve.user_id)
    assert await find_connected(bench.seed.db) == []
    assert await find_connected(bench.seed.db, eve.user_id) == []


async def test_a_connection_that_is_found_to_be_over_is_waited_for_too(
    bench: Bench, authority: Rotating, notion: UUID
) -> None:
    await grant(bench, authority, notion, refresh_token="unknown", expires_in=0)
    claim = await waiting(bench, ADD_TO_NOTION, "/say done")
    (item,) = (await bench.turn(claim))["open_items"]
    assert "again" in item["message"]
    assert await find_connected(bench.seed.db) == []
    await connect(bench, authority, notion)
    assert await go_on(bench, claim) == "completed"
    assert "-> ok" in await bench.told(claim)


async def test_a_login_that_is_over_is_waited_for_until_its_user_signs_in(
    bench: Bench, authority: Rotating, peer: Guarded
) -> None:
    await add(bench, authority, peer, "mine", auth_type="user_oidc")
    await grant(bench, authority, None)
    await bench.seed.db.fetch("UPDATE oauth_tokens SET needs_reauth = 'invalid_grant'")
    claim = await waiting(bench, "/call mine__add {}", "/say done")
    (item,) = (await bench.turn(claim))["open_items"]
    assert (item["connect_url"], item["message"]) == (None, "Sign in again to use this server.")
    await connect(bench, authority, None)
    assert await go_on(bench, claim) == "completed"
    assert "-> ok" in await bench.told(claim)


async def test_a_server_that_lists_nothing_without_more_access_is_waited_for_too(
    bench: Bench, authority: Rotating, peer: Guarded, notion: UUID
) -> None:
    await grant(bench, authority, notion)

    async def wants_more(exchange: Exchange, message: dict[str, Any]) -> None:
        challenge = 'Bearer error="insufficient_scope", scope="pages:read"'
        await exchange.answer(status=403, headers=f"www-authenticate: {challenge}\r\n")

    peer.says["tools/list"] = wants_more
    claim = await waiting(bench, ADD_TO_NOTION, "/say done")
    (item,) = (await bench.turn(claim))["open_items"]
    assert item["reason"] == "insufficient_scope"
    await overdue(bench)
    assert await go_on(bench, claim) == "completed"
    (notice,) = await notices(bench, claim)
    assert (notice["code"], "more access" in notice["message"]) == (AUTH_REQUIRED, True)


async def test_nobody_connects_in_time_and_it_goes_on_without(bench: Bench, notion: UUID) -> None:
    claim = await waiting(bench, "/say done")
    await overdue(bench)
    assert await go_on(bench, claim) == "completed"
    assert await bench.told(claim) == ["done"]
    assert [notice["connect_url"] for notice in await notices(bench, claim)] == [link(notion)]


@pytest.mark.parametrize("change", [{"enabled": False}, {"auth_type": "none"}, None])
async def test_nobody_waits_for_a_server_that_is_gone_or_wants_no_account_any_more(
    bench: Bench, peer: Guarded, notion: UUID, change: dict[str, Any] | None
) -> None:
    claim = await waiting(bench, "/say done")
    db = bench.seed.db
    assert await find_pointless(db) == []
    if change is None:
        await db.fetch("DELETE FROM mcp_server_configs WHERE id = $1", notion)
    else:
        settings: dict[str, Any] = {"url": peer.url, "availability": "default_on"}
        await change_server(db, notion, "notion", **(settings | {"auth_type": "oauth2"} | change))
    ((item_id, chat_id),) = await find_pointless(db)
    await expire_item(db, item_id, chat_id)
    assert await go_on(bench, claim) == "completed"


async def test_nobody_waits_for_a_server_that_is_not_theirs_to_use_any_more(
    bench: Bench, authority: Rotating, peer: Guarded
) -> None:
    db = bench.seed.db
    group = await make_group(db, "staff", bench.seed.actor.user_id)
    await add(bench, authority, peer, "wiki", access="groups", group_ids=[group])
    claim = await waiting(bench, "/tools")
    assert (await bench.turn(claim))["status"] == "requires_action"
    assert await find_pointless(db) == []
    await db.fetch("DELETE FROM group_members")
    ((item_id, chat_id),) = await find_pointless(db)
    await expire_item(db, item_id, chat_id)
    assert await go_on(bench, claim) == "completed"
    assert "wiki" not in (await bench.told(claim))[-1]


async def test_a_user_may_go_on_without(bench: Bench, authority: Rotating, notion: UUID) -> None:
    claim = await waiting(bench, "/say done")
    (item,) = (await bench.turn(claim))["open_items"]
    mine = (bench.seed.actor, claim.chat_id, UUID(item["id"]), "auth", {"action": "skip"})
    await answers(bench).answer(*mine)
    await answers(bench).answer(*mine)
    assert await go_on(bench, claim) == "completed"
    await connect(bench, authority, notion)
    row = await bench.seed.db.fetch_one("SELECT answer->>'action' AS said FROM open_items")
    assert row is not None
    assert row["said"] == "skip"


async def test_it_never_waits_a_second_time(
    bench: Bench, authority: Rotating, notion: UUID
) -> None:
    claim = await waiting(bench, "/say done")
    await connect(bench, authority, notion)
    await bench.seed.db.fetch("DELETE FROM oauth_tokens")
    assert await go_on(bench, claim) == "completed"
    assert len(await notices(bench, claim)) == 1


async def test_a_stop_ends_the_wait(bench: Bench, authority: Rotating, notion: UUID) -> None:
    claim = await waiting(bench, "/say never")
    (item,) = (await bench.turn(claim))["open_items"]
    await interrupt_chat(bench.seed.db, bench.seed.actor, claim.chat_id, claim.turn_id)
    turn = await bench.turn(claim)
    assert (turn["status"], turn["open_items"]) == ("interrupted", [])
    await connect(bench, authority, notion)
    assert (await bench.turn(claim))["status"] == "interrupted"
    with pytest.raises(Conflict):
        await answers(bench).answer(
            bench.seed.actor, claim.chat_id, UUID(item["id"]), "auth", {"action": "skip"}
        )


async def test_archiving_ends_the_wait(bench: Bench, notion: UUID) -> None:
    claim = await waiting(bench, "/say never")
    await patch_chat(bench.seed.db, bench.seed.actor, claim.chat_id, ChatPatch(archived=True))
    turn = await bench.turn(claim)
    assert (turn["status"], turn["open_items"]) == ("interrupted", [])


async def test_a_stop_that_comes_while_it_parks_wins(bench: Bench, notion: UUID) -> None:
    await bench.seed.chat("/say never", on_auth_required="wait")
    claim = await bench.seed.claim()
    await interrupt_chat(bench.seed.db, bench.seed.actor, claim.chat_id, claim.turn_id)
    assert await run_turn(bench.deps, claim, Control()) == "interrupted"
    assert await bench.told(claim) == []


@pytest.mark.parametrize("comes", [True, False])
async def test_a_server_that_no_turn_may_go_without_is_waited_for_first(
    bench: Bench, authority: Rotating, peer: Guarded, *, comes: bool
) -> None:
    forced: dict[str, Any] = {"availability": "force_on", "required_auth": True}
    server_id = await add(bench, authority, peer, "forced", **forced)
    claim = await waiting(bench, "/say done")
    assert (await bench.turn(claim))["status"] == "requires_action"
    await (connect(bench, authority, server_id) if comes else overdue(bench))
    assert await go_on(bench, claim) == ("completed" if comes else "failed")
    error = (await bench.turn(claim))["error"]
    assert (error is None) if comes else (error["kind"] == "auth_required")


async def test_a_sub_agent_never_waits(bench: Bench, notion: UUID) -> None:
    await bench.seed.chat("/say done", on_auth_required="wait")
    parent = await bench.seed.chat_id("parent")
    await bench.seed.db.fetch("UPDATE turns SET status = 'completed' WHERE chat_id = $1", parent)
    await bench.seed.db.fetch(
        "UPDATE chats SET parent_chat_id = $1, root_chat_id = $1 WHERE id <> $1", parent
    )
    claim = await bench.seed.claim()
    assert await run_turn(bench.deps, claim, Control()) == "completed"
    assert [notice["code"] for notice in await notices(bench, claim)] == [AUTH_REQUIRED]


# --- while it runs


async def test_a_server_connected_meanwhile_is_offered_from_the_next_step_on(
    bench: Bench, authority: Rotating, notion: UUID
) -> None:
    control = Control()

    async def connects(exchange: Exchange, message: dict[str, Any]) -> None:
        await connect(bench, authority, notion)
        control.policy_version = (await read_state(bench.seed.db)).version  # as its worker hears
        await result(exchange, message, OK)

    hub = Peer(tools=[ADD])
    hub.says["tools/call"] = connects
    async with running(hub):
        await make_server(bench.seed.db, "hub", url=hub.url, availability="default_on")
        claim = await bench.claim("/call hub__add {}", ADD_TO_NOTION, "/say done")
        assert await run_turn(bench.deps, claim, control) == "completed"
    assert await bench.told(claim) == [
        "hub__add({})", "-> ok", "notion__add({})", "-> ok", "done"
    ]  # fmt: skip


async def test_who_signs_in_once_more_meanwhile_notices_nothing(
    bench: Bench, authority: Rotating, peer: Guarded
) -> None:
    await add(bench, authority, peer, "mine", auth_type="user_oidc")
    await grant(bench, authority, None)

    async def signs_in(exchange: Exchange, message: dict[str, Any]) -> None:
        await grant(bench, authority, None)
        await result(exchange, message, OK)

    hub = Peer(tools=[ADD])
    hub.says["tools/call"] = signs_in
    async with running(hub):
        await make_server(bench.seed.db, "hub", url=hub.url, availability="default_on")
        claim = await bench.run("/call hub__add {}", "/call mine__add {}", "/say done")
    assert await bench.told(claim) == [
        "hub__add({})", "-> ok", "mine__add({})", "-> ok", "done"
    ]  # fmt: skip
    assert await notices(bench, claim) == []


async def test_a_call_that_has_to_leave_soon_waits_for_its_token_before(
    bench: Bench,
    authority: Rotating,
    peer: Guarded,
    notion: UUID,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await grant(bench, authority, notion)
    await bench.run(ADD_TO_NOTION, "/say done")
    await bench.seed.db.fetch("UPDATE oauth_tokens SET expires_at = clock_timestamp()")
    monkeypatch.setattr(calls, "SEND_WITHIN_S", 0.4)
    authority.mood = "holding"
    turn = asyncio.create_task(bench.run(ADD_TO_NOTION, "/say done"))
    await authority.until_asked(1)
    await asyncio.sleep(0.6)
    authority.let_go.set()
    assert await bench.told(await turn) == ["notion__add({})", "-> ok", "done"]


async def test_a_connection_that_is_refused_meanwhile_is_explained_and_dropped(
    bench: Bench, authority: Rotating, peer: Guarded, notion: UUID
) -> None:
    await grant(bench, authority, notion)

    async def refuses(exchange: Exchange, message: dict[str, Any]) -> None:
        peer.strict = True
        await exchange.answer(status=401)

    peer.says["tools/call"] = refuses
    claim = await bench.run(ADD_TO_NOTION, "/tools", "/say done")
    answered, tools = (await bench.told(claim))[1:3]
    assert "has to connect their account at this server again" in answered
    assert "do not repeat the call" in answered
    assert "notion__add" not in tools
    (notice,) = await notices(bench, claim)
    assert (notice["code"], notice["connect_url"]) == (AUTH_REQUIRED, link(notion))
    assert "does not accept the connection any more" in notice["message"]


async def test_a_server_that_refused_everybody_is_used_again_when_it_is_well(
    bench: Bench, authority: Rotating, peer: Guarded, notion: UUID
) -> None:
    """By itself, after a while; and nobody has to connect for it."""
    await grant(bench, authority, notion)
    peer.strict = True
    for times in (1, 2):
        claim = await bench.run(ADD_TO_NOTION, "/say done")
        assert (await bench.turn(claim))["status"] == "completed"
        (notice,) = await notices(bench, claim)
        assert (notice["code"], notice["connect_url"]) == (AUTH_REQUIRED, link(notion))
        (row,) = await bench.seed.db.fetch("SELECT needs_reauth, retries FROM oauth_tokens")
        assert (row["needs_reauth"], row["retries"]) == ("unauthorized", times)
        await bench.seed.db.fetch("UPDATE oauth_tokens SET retry_at = clock_timestamp()")
    peer.strict = False
    claim = await bench.run(ADD_TO_NOTION, "/say done")
    assert await bench.told(claim) == ["notion__add({})", "-> ok", "done"]
    assert await notices(bench, claim) == []


async def test_until_it_is_time_such_a_server_is_not_asked_and_its_user_is_waited_for(
    bench: Bench, authority: Rotating, peer: Guarded, notion: UUID
) -> None:
    await grant(bench, authority, notion)
    peer.strict = True
    await bench.run("/say done")
    refusals, peer.strict = peer.refusals, False
    claim = await waiting(bench, "/say done")
    (item,) = (await bench.turn(claim))["open_items"]
    assert (item["reason"], peer.refusals, peer.heard) == ("unauthorized", refusals, [])
    await connect(bench, authority, notion)
    assert await go_on(bench, claim) == "completed"


async def test_a_call_that_needs_more_access_says_so_and_the_server_stays(
    bench: Bench, authority: Rotating, peer: Guarded, notion: UUID
) -> None:
    await grant(bench, authority, notion)
    peer.missing_scope = "pages:write"
    claim = await bench.run(ADD_TO_NOTION, '/call notion__add {"a":2}', "/tools")
    told = await bench.told(claim)
    assert "needs more access than the user has given" in told[1]
    assert "needs more access than the user has given" in told[3]
    assert "notion__add" in told[-1]
    (notice,) = await notices(bench, claim)
    assert (notice["code"], notice["connect_url"]) == (AUTH_REQUIRED, link(notion))
    assert "more access" in notice["message"]


async def test_a_server_that_forbids_a_call_for_reasons_of_its_own_is_taken_at_its_word(
    bench: Bench, authority: Rotating, peer: Guarded, notion: UUID
) -> None:
    await grant(bench, authority, notion)

    async def forbids(exchange: Exchange, message: dict[str, Any]) -> None:
        await exchange.answer(status=403)

    peer.says["tools/call"] = forbids
    claim = await bench.run(ADD_TO_NOTION, "/say done")
    assert (await bench.told(claim))[1].endswith("(HTTP 403)")
    assert await notices(bench, claim) == []
