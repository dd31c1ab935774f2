"""A user with a model, in a database of the test's own."""

import pytest

from chatd.store.db import Database
from tests.seed import Seed, make_seed


@pytest.fixture
async def seed(db: Database) -> Seed:
    return await make_seed(db)
