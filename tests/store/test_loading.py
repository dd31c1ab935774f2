"""Loading a turn: what cannot be used costs only itself."""

from typing import Any

from pydantic import SecretStr

from chatd.core.items import NewItem
from chatd.core.servers import ApiKeyAuth, UnusableAuth, UserAuth
from chatd.core.situation import unauthorised
from chatd.store import work
from chatd.store.db import Database
from chatd.store.ids import new_id
from chatd.store.items import open_item
from chatd.store.loading import TurnLoader
from chatd.store.secrets import KeyRing
from tests.seed import KEYS, Seed, answer, make_seed, make_server, planned_call

WITH_KEY: dict[str, Any] = {
    "auth_type": "api_key",
    "api_key_header": "X-Key",
    "api_key_value": SecretStr("s3cret"),
    "availability": "force_on",
}
OTHER_KEYS = KeyRing({"other": b"o" * 32})


async def test_a_servers_secret_is_read_with_its_key(db: Database) -> None:
    await make_server(db, **WITH_KEY)
    claim = await (await make_seed(db)).claimed()
    (server,) = (await TurnLoader(db, KEYS).load(claim)).servers
    assert server.auth == ApiKeyAuth(header="X-Key", value=SecretStr("s3cret"))


async def test_a_server_whose_key_is_not_set_is_unusable_and_the_turn_loads(db: Database) -> None:
    await make_server(db, **WITH_KEY)
    claim = await (await make_seed(db)).claimed()
    (server,) = (await TurnLoader(db, OTHER_KEYS).load(claim)).servers
    assert server.auth == UnusableAuth()


async def test_credentials_of_each_user_are_known_to_be_missing(db: Database) -> None:
    await make_server(db, availability="force_on")
    await db.fetch("UPDATE mcp_server_configs SET auth_type = 'oauth2'")
    claim = await (await make_seed(db)).claimed()
    (server,) = (await TurnLoader(db, KEYS).load(claim)).servers
    assert server.auth == UserAuth(type="oauth2")
    assert unauthorised([server]) == {server.id}


async def test_a_provider_key_that_cannot_be_read_fails_the_turn_and_says_so(db: Database) -> None:
    claim = await (await make_seed(db)).claimed()
    await db.fetch("UPDATE model_providers SET api_key = '\\x01', api_key_key_id = 'gone'")
    loaded = await TurnLoader(db, KEYS).load(claim)
    assert loaded.model is None
    assert loaded.model_error is not None
    assert loaded.model_error["kind"] == "missing_key"
    assert "gone" not in loaded.model_error["detail"]


async def test_of_a_long_turn_only_the_calls_of_the_last_step_are_read(seed: Seed) -> None:
    claim = await seed.claimed()
    for step in (1, 2, 3):
        calls = [planned_call(1, step), planned_call(2, step)]
        await work.commit_step(seed.db, claim, [answer("", step, *calls)], calls, [], None)
        for call in calls:
            question = NewItem("elicitation", {"message": "Who?"}, 3600.0)
            await open_item(seed.db, claim, new_id(), call, question)
    loaded = await TurnLoader(seed.db, KEYS).load(claim)
    assert [(entry.step, entry.position) for entry in loaded.journal] == [(3, 1), (3, 2)]
    assert [(item.step, item.position) for item in loaded.items] == [(3, 1), (3, 2)]
