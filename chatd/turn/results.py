"""Results too long for the model: kept whole as files, shown in part, read on with a tool."""

import asyncio
from dataclasses import replace
from uuid import UUID, uuid5

from chatd.core.budget import cap, removed
from chatd.core.errors import Unavailable
from chatd.core.files import PLAIN, NewFile, safe_name
from chatd.core.tools import JsonObject, ToolResult
from chatd.core.work import Claim, PlannedCall
from chatd.store.db import Database
from chatd.store.files import keep_result, read_result_file
from chatd.store.work import patiently
from chatd.tools.results import line_of, read_result, result_id, unknown

RESULTS = UUID("6f1d6a0e-6c0c-5b5e-9a53-3a2c6d3a6d51")
"""The namespace of the ids: one call of one turn is one file, however often it is kept."""

PATIENCE_S = 5.0
"""How long a database that is away may hold up a result before it is only cut."""


async def fit(
    db: Database,
    claim: Claim,
    planned: PlannedCall,
    result: ToolResult,
    limit: int,
    *,
    patience_s: float = PATIENCE_S,
) -> ToolResult:
    """The result with at most `limit` bytes of text; the whole text is kept for `read_result`.

    Raises `LeaseLost`. Without the database the text is cut, and the rest is lost.
    """
    data = result.text.encode()
    if len(data) <= limit:
        return result
    file_id = uuid5(RESULTS, f"{claim.turn_id}/{planned.step}/{planned.position}")
    name = safe_name(f"{planned.call.name}-{planned.call.id}.txt")
    more = ""
    try:
        async with asyncio.timeout(patience_s):
            file = NewFile(name, PLAIN, data)
            await patiently(lambda: keep_result(db, claim, file_id, file))
        start, _ = removed(data, limit)
        line = line_of(result.text, len(data[:start].decode()))
        more = f'; read on with read_result {{"id": "{file_id}", "offset": {line}}}'
    except (TimeoutError, Unavailable):
        pass
    return replace(result, text=cap(result.text, limit, more=more), cut_from=len(data))


async def read(db: Database, chat_id: UUID, arguments: JsonObject, limit: int) -> ToolResult:
    """What `read_result` answers in this chat."""
    file_id = result_id(arguments)
    if isinstance(file_id, ToolResult):
        return file_id
    text = await patiently(lambda: read_result_file(db, chat_id, file_id))
    if text is None:
        return unknown(str(file_id))
    # Up to 16 MiB: other turns go on meanwhile.
    return await asyncio.to_thread(read_result, text, arguments, limit)
