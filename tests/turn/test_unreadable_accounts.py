"""A connection whose key is missing: its user is told so, by notices and by what waits for them."""

from tests.credentials.guarded import Guarded
from tests.credentials.rotating import Rotating
from tests.turn.bench import Bench
from tests.turn.test_connecting import UUID, authority, grant, notices, notion, peer, waiting

__all__ = ["authority", "notion", "peer"]


async def lose_key(bench: Bench, authority: Rotating, server_id: UUID) -> None:
    await grant(bench, authority, server_id)
    await bench.seed.db.fetch("UPDATE oauth_tokens SET access_token_key_id = 'gone'")


async def test_notices_give_the_reason(
    bench: Bench, authority: Rotating, notion: UUID, peer: Guarded
) -> None:
    await lose_key(bench, authority, notion)
    for _ in range(2):  # found to be so, and known to be so
        (notice,) = await notices(bench, await bench.run("/say done"))
        assert "the connection cannot be read" in notice["message"]
    assert peer.bearers == []


async def test_what_waits_for_the_user_gives_the_reason(
    bench: Bench, authority: Rotating, notion: UUID
) -> None:
    await lose_key(bench, authority, notion)
    await waiting(bench, "/say done")
    (item,) = await bench.seed.db.fetch("SELECT data FROM open_items WHERE kind = 'auth'")
    assert item["data"]["reason"] == "tampered"
