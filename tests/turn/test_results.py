"""Results that are too long: kept whole, shown in part, read on."""

import re
from typing import Any
from uuid import uuid4

import orjson
import pytest

from chatd.core.budget import FLOOR
from chatd.core.errors import LeaseLost
from chatd.core.messages import Media
from chatd.core.tools import ToolResult
from chatd.core.work import Claim
from chatd.store.db import Database, load
from chatd.turn.results import fit, read
from tests.seed import Seed, planned_call
from tests.store.working import lose
from tests.turn.bench import Bench, call

PNG = Media(media_type="image/png", data="aWNvbg==")
MARKER = re.compile(
    r"\n\[… (\d+) of (\d+) bytes of this result were removed here; "
    r"read on with read_result (\{.*\}) …\]\n"
)
LONG = "".join(f"line {number}: {'日' * 30}\n" for number in range(1, 1001))


async def fitted(seed: Seed, claim: Claim, text: str = LONG) -> ToolResult:
    return await fit(seed.db, claim, planned_call(), ToolResult(text, media=(PNG,)), FLOOR)


def arguments(text: str) -> Any:
    """What the marker tells the model to call `read_result` with."""
    found = MARKER.search(text)
    assert found is not None, text[:500]
    return orjson.loads(found[3])


async def kept(seed: Seed) -> list[str]:
    return [bytes(row["data"]).decode() for row in await seed.db.fetch("SELECT data FROM files")]


async def test_a_result_that_fits_is_left_alone(seed: Seed) -> None:
    claim = await seed.claimed()
    result = ToolResult("é" * (FLOOR // 2))
    assert await fit(seed.db, claim, planned_call(), result, FLOOR) is result
    assert await kept(seed) == []


async def test_nothing_is_kept_for_a_turn_that_is_lost(seed: Seed) -> None:
    claim = await seed.claimed()
    await lose(seed, claim)
    with pytest.raises(LeaseLost):
        await fitted(seed, claim)
    assert await kept(seed) == []


async def test_without_the_database_the_result_is_only_cut(seed: Seed) -> None:
    claim, nowhere = await seed.claimed(), Database("postgresql://nobody@127.0.0.1:9/none")
    result = await fit(nowhere, claim, planned_call(), ToolResult(LONG), FLOOR, patience_s=0.1)
    assert len(result.text.encode()) <= FLOOR
    assert "bytes of this result were removed here …]" in result.text
    assert result.cut_from == len(LONG.encode())
    await nowhere.close()


async def test_a_long_result_keeps_its_head_its_tail_and_a_way_to_the_rest(seed: Seed) -> None:
    claim = await seed.claimed()
    result = await fitted(seed, claim)
    head, tail = result.text[: result.text.index("[…")], result.text[result.text.index("…]") + 3 :]
    assert len(result.text.encode()) <= FLOOR
    assert LONG.startswith(head.removesuffix("\n"))
    assert LONG.endswith(tail)
    assert len(head) > len(tail)
    assert (result.media, result.cut_from) == ((PNG,), len(LONG.encode()))
    assert await kept(seed) == [LONG]


async def test_the_marker_leads_to_the_first_line_that_is_missing(seed: Seed) -> None:
    claim = await seed.claimed()
    result = await fitted(seed, claim)
    page = await read(seed.db, claim.chat_id, arguments(result.text) | {"limit": 1}, FLOOR)
    first = page.text.partition("\n\n")[2]
    assert first not in result.text
    last_shown = re.findall(r"line (\d+)", result.text[: result.text.index("[…")])[-1]
    assert first.startswith(f"line {last_shown}:")


async def test_the_same_call_twice_is_one_file(seed: Seed) -> None:
    claim = await seed.claimed()
    first, again = await fitted(seed, claim), await fitted(seed, claim)
    assert first == again
    other = await fit(seed.db, claim, planned_call(2), ToolResult(LONG), FLOOR)
    assert arguments(other.text)["id"] != arguments(first.text)["id"]
    assert len(await kept(seed)) == 2


async def test_a_result_of_another_chat_is_unknown(seed: Seed) -> None:
    claim = await seed.claimed()
    asked = arguments((await fitted(seed, claim)).text)
    for chat_id, wanted in ((await seed.chat_id(), asked), (claim.chat_id, {"id": str(uuid4())})):
        answer = await read(seed.db, chat_id, wanted, FLOOR)
        assert answer.is_error
        assert answer.text.startswith("There is no result with the id")


async def test_live_stored_and_told_to_the_model_are_the_same_bytes(bench: Bench) -> None:
    claim = await bench.run(call("big", n=300_000), "/echo")
    _, shown, answer = await bench.told(claim)
    row = await bench.seed.db.fetch("SELECT result FROM tool_calls")
    assert load(row[0]["result"])["result"] == shown.removeprefix("-> ") == answer
    assert arguments(answer)["offset"] > 1


async def test_the_model_reads_on_with_the_tool(bench: Bench) -> None:
    claim = await bench.run(call("big", n=300_000))
    asked = arguments((await bench.told(claim))[1])
    asked |= {"offset": 300, "search": "CDEF0123"}
    again = await bench.seed.send(
        claim.chat_id, f"/call read_result {orjson.dumps(asked).decode()}"
    )
    assert again.turn["status"] == "pending"
    next_claim = await bench.seed.claim()
    await bench.start(next_claim).task
    told = await bench.told(next_claim)
    assert any(line.startswith("-> Matching lines from line 300 on of 300: 1.") for line in told)
