"""Fixtures of the tests of the API: a node in memory, and a client of it."""

import random
from collections.abc import AsyncIterator

import pytest
import trio

from node import app
from node.config.settings import Settings
from node.environment import Environment
from node.node import Node
from node.store.memory.store import MemoryStore
from tests.unit.node.api.served import KEY, Api, now_ms, served


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    """A whole node on the mock backend, in memory."""
    world = Environment(
        key=KEY, network=None, store=MemoryStore(log_id="ab" * 8), now_ms=now_ms, chance=random.Random(0).random
    )
    async with trio.open_nursery() as nursery:
        yield await nursery.start(app.run, world, Settings(backend="mock", name="n1"))
        nursery.cancel_scope.cancel()


@pytest.fixture
async def api(node: Node) -> AsyncIterator[Api]:
    async with served(node) as client:
        yield client
