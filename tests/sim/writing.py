"""Writes in simulated swarms: by which backend a seed writes and how long that may take, and how they arrive."""

from node.node import Node
from tests.sim.swarms import (
    key,
)

STORE_DEADLINE = 0.2
DEADLINES = {"mock": STORE_DEADLINE, "real": 1.0, "hybrid": 0.1}
WITH_DISK = {"mock": 2 * STORE_DEADLINE, "real": 1.0 + 2 * STORE_DEADLINE, "hybrid": 0.1 + 2 * STORE_DEADLINE}
"""How long a write may take in all: it waits for the disk under other writes of its key, and under its own."""


def backend_of(seed: int) -> str:
    return ("mock", "real", "hybrid")[seed % 3]


async def order_of_arrival(node: Node, number: object) -> list[int]:
    """The versions of one address in the order in which a node merged them."""
    wanted = key(number)
    return [change.version for change in await node.store.log(after=0, limit=100_000) if change.key == wanted]


async def assert_once_and_in_order(node: Node, numbers: range | list[int]) -> None:
    for number in numbers:
        arrived = await order_of_arrival(node, number)
        assert len(set(arrived)) == len(arrived), f"{number} was merged twice"
        assert arrived == sorted(arrived), f"{number} received out of order at {node.name}: {arrived}"
