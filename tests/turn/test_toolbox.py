"""Calling tools: what is refused before it leaves, and what a user hears of."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pydantic import SecretStr

from chatd.core.errors import LeaseLost, TurnFailed
from chatd.core.reasons import SENTENCES
from chatd.core.servers import Availability
from chatd.core.tools import ToolCall, ToolResult
from chatd.core.work import Claim, PlannedCall
from chatd.store import work
from chatd.store.loading import Policy
from chatd.stream.publisher import TurnFeed
from chatd.turn.calls import Calls
from chatd.turn.deps import Control
from chatd.turn.toolbox import Toolbox
from tests.seed import answer, change_server, make_server
from tests.store.working import lose
from tests.turn.bench import Bench
from tests.waiting import one


async def opened(bench: Bench, claim: Claim) -> Toolbox:
    loaded = await bench.deps.loader.load(claim)
    toolbox = Toolbox(bench.deps, loaded, Control())
    await toolbox.open()
    return toolbox


def calling(bench: Bench, toolbox: Toolbox) -> Callable[[PlannedCall], Awaitable[ToolResult]]:
    """Makes calls that wait for nobody."""
    feed = TurnFeed(bench.deps.publisher, toolbox.turn.claim)
    calls = Calls(bench.deps, toolbox.turn, toolbox, feed)

    async def call(planned: PlannedCall) -> ToolResult:
        result = await calls.call(planned)
        assert isinstance(result, ToolResult)
        return result

    return call


async def planned(
    bench: Bench, claim: Claim, toolbox: Toolbox, name: str, args: str
) -> PlannedCall:
    """The turn's one call, journaled as intended."""
    made = PlannedCall(ToolCall("c1", name, args), 1, 1, toolbox.by_name.get(name))
    await work.commit_step(bench.seed.db, claim, [answer("", 1, made)], [made], [], None)
    return made


async def called(bench: Bench, name: str, args: str) -> tuple[Claim, ToolResult]:
    claim = await bench.claim("/say x")
    toolbox = await opened(bench, claim)
    return claim, await calling(bench, toolbox)(await planned(bench, claim, toolbox, name, args))


async def test_a_call_is_sent_and_answered(bench: Bench) -> None:
    claim, result = await called(bench, "demo__add", '{"a":1,"b":2}')
    assert (result.text, result.outcome) == ("3", "done")
    assert await bench.states(claim) == ["sent"]


async def test_what_is_read_last_does_not_undo_what_is_newer(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = await bench.claim("/say x")
    toolbox = await opened(bench, claim)
    older = await bench.deps.loader.reload_policy(claim)
    await change_server(bench.seed.db, await make_server(bench.seed.db, "more"), "more")
    await toolbox.reload()
    newer = toolbox.policy_version

    async def slow(_: Claim) -> Policy:
        return older

    monkeypatch.setattr(bench.deps.loader, "reload_policy", slow)
    await toolbox.reload()
    assert toolbox.policy_version == newer > older.version


async def test_no_arguments_at_all_are_an_empty_object(bench: Bench) -> None:
    for nothing in ("", "  "):
        _, result = await called(bench, "demo__current_time", nothing)
        assert result.outcome == "done"


@pytest.mark.parametrize(
    ("name", "args", "says"),
    [
        ("demo__nothing", "{}", "no tool named demo__nothing"),
        ("demo__add", "{", "invalid JSON input"),
        ("demo__add", "[1]", "expected an object"),
        ("demo__add", "null", "expected an object"),
    ],
)
async def test_what_cannot_be_called_never_leaves(
    bench: Bench, name: str, args: str, says: str
) -> None:
    claim, result = await called(bench, name, args)
    assert (result.is_error, result.outcome) == (True, "failed")
    assert says in result.text
    assert await bench.states(claim) == ["intended"]


async def test_a_call_that_was_closed_meanwhile_never_leaves(bench: Bench) -> None:
    claim = await bench.claim("/say x")
    toolbox = await opened(bench, claim)
    made = await planned(bench, claim, toolbox, "demo__add", '{"a":1,"b":2}')
    await bench.seed.db.fetch("UPDATE tool_calls SET state = 'cancelled'")
    assert (await calling(bench, toolbox)(made)).outcome == "cancelled"
    assert await bench.states(claim) == ["cancelled"]


async def test_a_call_of_a_lost_turn_never_leaves(bench: Bench) -> None:
    claim = await bench.claim("/say x")
    toolbox = await opened(bench, claim)
    made = await planned(bench, claim, toolbox, "demo__add", '{"a":1,"b":2}')
    await lose(bench.seed, claim)
    with pytest.raises(LeaseLost):
        await calling(bench, toolbox)(made)
    assert await bench.states(claim) == ["intended"]


async def test_a_tool_denied_since_the_turn_began_never_leaves(bench: Bench) -> None:
    claim = await bench.claim("/say x")
    toolbox = await opened(bench, claim)
    made = await planned(bench, claim, toolbox, "demo__add", '{"a":1,"b":2}')
    url = (await one(bench.seed.db, "SELECT url FROM mcp_server_configs"))["url"]
    await change_server(
        bench.seed.db,
        bench.server_id,
        url=url,
        availability="default_on",
        tool_allow_list=("echo",),
    )
    result = await calling(bench, toolbox)(made)
    assert (result.is_error, result.outcome) == (True, "denied")
    assert await bench.states(claim) == ["intended"]
    assert await toolbox.refresh()
    assert [name for name in toolbox.by_name if "__" in name] == ["demo__echo"]
    assert not await toolbox.refresh()


async def test_a_user_hears_of_a_server_that_is_away_once(bench: Bench) -> None:
    await make_server(bench.seed.db, "gone", availability="default_on")
    toolbox = await opened(bench, await bench.claim("/say x"))
    assert [notice["code"] for notice in toolbox.notices] == ["unreachable"]
    await toolbox.open()
    assert len(toolbox.notices) == 1


async def test_a_server_the_chat_did_not_choose_is_nobodys_business(bench: Bench) -> None:
    await make_server(bench.seed.db, "gone", availability="default_off")
    toolbox = await opened(bench, await bench.claim("/say x"))
    assert toolbox.notices == []


async def test_a_forced_server_the_user_has_not_connected_is_skipped_and_said_so(
    bench: Bench,
) -> None:
    await make_server(bench.seed.db, "mine", availability="force_on", auth_type="user_oidc")
    toolbox = await opened(bench, await bench.claim("/say x"))
    assert "demo__add" in toolbox.by_name
    assert [(notice["code"], notice["message"]) for notice in toolbox.notices] == [
        ("mcp_auth_required", "mine: Sign in with your organisation's account to use this server.")
    ]


@pytest.mark.parametrize("availability", ["force_on", "default_on"])
async def test_only_a_forced_server_that_requires_an_account_fails_the_turn(
    bench: Bench, availability: Availability
) -> None:
    settings: dict[str, Any] = {"auth_type": "user_oidc", "required_auth": True}
    await make_server(bench.seed.db, "mine", availability=availability, **settings)
    claim = await bench.claim("/say x")
    if availability != "force_on":
        assert (await opened(bench, claim)).tools
        return
    with pytest.raises(TurnFailed) as failed:
        await opened(bench, claim)
    assert failed.value.error["kind"] == "auth_required"


async def test_a_user_hears_of_credentials_that_cannot_be_read(bench: Bench) -> None:
    settings: dict[str, Any] = {"auth_type": "api_key", "api_key_header": "X-Key"}
    settings["api_key_value"] = SecretStr("canary")
    await make_server(bench.seed.db, "moved", availability="force_on", **settings)
    await bench.seed.db.fetch(
        "UPDATE mcp_server_configs SET api_key_value = 'x' WHERE slug = 'moved'"
    )
    toolbox = await opened(bench, await bench.claim("/say x"))
    assert [notice["code"] for notice in toolbox.notices] == ["unusable_credentials"]


async def test_a_tool_that_is_not_what_was_pinned_is_not_offered_and_a_user_hears_why(
    bench: Bench,
) -> None:
    claim = await bench.claim("/say x")
    before = await opened(bench, claim)
    await bench.seed.db.fetch("UPDATE tool_pins SET definition_hash = 'x' WHERE tool_name = 'add'")
    url = (await one(bench.seed.db, "SELECT url FROM mcp_server_configs"))["url"]
    await change_server(
        bench.seed.db,
        bench.server_id,
        url=url,
        availability="default_on",
        tool_changes="quarantine",
    )
    toolbox = await opened(bench, claim)
    assert before.by_name.keys() - toolbox.by_name.keys() == {"demo__add"}
    assert [(notice["code"], notice["message"]) for notice in toolbox.notices] == [
        ("changed", f"demo: add: {SENTENCES['changed']}")
    ]
