"""What users attach reaches the model; what is gone costs the turn nothing."""

from base64 import b64encode
from typing import Any

import orjson

from chatd.core.chats import NewChat, NewTurn
from chatd.core.files import new_upload
from chatd.core.messages import FilePart
from chatd.core.work import Claim
from chatd.store import files
from chatd.store.ids import new_id
from chatd.store.submitting import create_chat
from chatd.turn.attachments import Attachments
from tests.seed import said
from tests.turn.bench import Bench

PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)


def part(file_id: Any) -> FilePart:
    return FilePart(type="file", file_id=str(file_id), media_type="", name="", size=0)


async def sent(bench: Bench, *uploads: tuple[str, bytes], gone: bool = False) -> Claim:
    """A turn whose message has these files; the model answers with what it was sent."""
    seed = bench.seed
    owner = seed.actor.user_id
    ids = [
        (await files.add_file(seed.db, owner, new_upload(data, name=name))).id
        for name, data in uploads
    ]
    content = await files.resolve_files(
        seed.db, owner, [*said("/messages"), *(part(file_id) for file_id in ids)]
    )
    new = NewChat(NewTurn(content))
    await create_chat(seed.db, seed.actor, new, None, chat_id=new_id(), turn_id=new_id())
    if gone:
        await seed.db.fetch("DELETE FROM files")
    claim = await seed.claim()
    assert await bench.start(claim).task == "completed"
    return claim


async def seen(bench: Bench, claim: Claim) -> Any:
    """The content of the user's message as the model was sent it."""
    messages = orjson.loads((await bench.told(claim))[-1])
    (content,) = [message["content"] for message in messages if message["role"] == "user"]
    return content


async def test_a_file_that_is_gone_is_a_note(bench: Bench) -> None:
    claim = await sent(bench, ("a.png", PNG), gone=True)
    assert "File a.png (image/png, 72 bytes) is not available" in await seen(bench, claim)


async def test_a_picture_goes_to_the_model_as_one(bench: Bench) -> None:
    claim = await sent(bench, ("a.png", PNG), ("b.csv", b"x,y\n1,2\n"))
    text, picture, table = await seen(bench, claim)
    assert text["text"] == "/messages"
    url = f"data:image/png;base64,{b64encode(PNG).decode()}"
    assert picture == {"type": "image_url", "image_url": {"url": url}}
    assert table["text"] == "File b.csv (text/csv, 8 bytes):\n```\nx,y\n1,2\n\n```"


async def test_the_bytes_are_read_once_a_turn(bench: Bench) -> None:
    claim = await sent(bench, ("a.png", PNG))
    history = (await bench.deps.loader.load(await again(bench, claim))).history
    held = Attachments(bench.seed.db, claim.chat_id)
    first = await held.of(history)
    assert list(first.values()) == [PNG]
    await bench.seed.db.fetch("DELETE FROM files")
    assert await held.of(history) == first


async def test_the_newest_files_come_first_when_there_are_too_many(bench: Bench) -> None:
    claim = await sent(bench, *[(f"{number}.png", PNG + bytes([number])) for number in range(3)])
    history = (await bench.deps.loader.load(await again(bench, claim))).history
    held = Attachments(bench.seed.db, claim.chat_id, room=2 * len(PNG) + 2)
    assert list((await held.of(history)).values()) == [PNG + b"\2", PNG + b"\1"]


async def again(bench: Bench, claim: Claim) -> Claim:
    """The chat's next turn, claimed: its history has the files."""
    await bench.seed.send(claim.chat_id)
    return await bench.seed.claim()
