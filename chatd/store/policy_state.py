"""The counter that tells workers to read the configuration again."""

from sqlmodel import col, update
from sqlmodel.ext.asyncio.session import AsyncSession

from chatd.store import tables


async def bump(session: AsyncSession) -> int:
    """The next policy version. Call it first: its row lock makes administrators take turns."""
    version = col(tables.PolicyState.version)
    found = await session.exec(
        update(tables.PolicyState).values(version=version + 1).returning(version)
    )
    return found.scalar_one()
