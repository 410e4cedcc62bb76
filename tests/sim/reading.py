"""Reads in simulated swarms: which nodes they ask, of addresses that the reader does not hold, on a slow store."""

from collections.abc import Iterator
from contextlib import contextmanager

import trio

from netsim.virtual.nodes import VirtualSwarm
from node.config.changes import read_change
from node.dht.base import Answer
from node.node import Node
from protocols.envelope import Envelope
from protocols.placement import nearest
from protocols.ucxl import Address, parse
from tests.sim.swarms import (
    Call,
    key,
    running,
    thing,
    wrap_calls,
)

REPLICATION = 2
FEW = {"replication": REPLICATION}
"""Each address is held by two nodes, so that most nodes are no holders."""


def at(temporal: str, number: object = 0) -> Address:
    return parse(str(thing(number)).replace("*^", temporal))


def foreign(swarm: VirtualSwarm, name: str = "n1") -> int:
    """The number of an address that this node does not hold, whichever node writes it."""
    peers = [machine.peer for machine in swarm.nodes.values()]
    mine = swarm[name].peer
    return next(number for number in range(1000) if mine not in nearest(key(number), peers, REPLICATION + 1))


def writer_of(swarm: VirtualSwarm, number: int) -> Node:
    """A holder of an address."""
    peers = [machine.peer for machine in swarm.nodes.values()]
    holder = nearest(key(number), peers, 1)[0]
    return next(node for node in running(swarm) if node.peer_id == holder)


async def change(node: Node, **data: object) -> None:
    await node.flags.change(read_change({"reason": "a test", **data}, author="tester"))


async def read(node: Node, address: Address, **how: object) -> Answer:
    return await node.resolver.resolve(address, **how)  # type: ignore[arg-type]


async def text_at(node: Node, address: Address) -> bytes:
    head = (await read(node, address)).heads[0]
    assert isinstance(head, Envelope)
    return head.content


@contextmanager
def asked(swarm: VirtualSwarm, reader: str = "n1", *, names: str = "heads versions by_digest") -> Iterator[list[str]]:
    """Gives the names of the other nodes, once for each read of their stores: that is how often they are asked."""
    reads: list[str] = []
    is_over = False
    for machine in swarm.nodes.values():
        if machine.name == reader:
            continue

        async def record(call: Call, name: str = machine.name) -> object:
            if not is_over:
                reads.append(name)
            return await call()

        wrap_calls(machine.store, names, record)
    yield reads
    is_over = True


def make_slow(swarm: VirtualSwarm, reader: str = "n1", *, seconds: float = 0.03) -> None:
    """Delay the answers of the other nodes."""

    async def slow(call: Call) -> object:
        await trio.sleep(seconds)
        return await call()

    for machine in swarm.nodes.values():
        if machine.name != reader:
            wrap_calls(machine.store, "heads versions", slow)
