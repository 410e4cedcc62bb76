"""Neighbours: peers may connect and disconnect at any moment, also while the node is being stopped."""

import trio
import trio.testing

from node.config.settings import Settings
from node.services.membership.neighbours import Neighbours
from node.store.memory.store import MemoryStore
from node.swarm.members import Members
from node.swarm.rpc import Rpc
from tests.unit.one_end import OneEnd

ROUNDS = 50
"""Trio runs ready tasks in a random order: in so many rounds every order occurs."""


def neighbours(net: OneEnd) -> Neighbours:
    return Neighbours(
        rpc=Rpc(net),
        members=Members(net.peer_id, replication=20),
        store=MemoryStore(log_id="ab" * 8),
        settings=Settings(network="test", name="n1"),
        finders=(),
        now_ms=lambda: 0,
        chance=lambda: 0.0,
        on_sign_of_life=lambda why: None,
    )


async def test_a_peer_that_connects_or_disconnects_while_the_node_stops_is_no_error() -> None:
    for _ in range(ROUNDS):
        node = neighbours(OneEnd())
        async with trio.open_nursery() as nursery:
            await nursery.start(node.run)
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                for _ in range(12):  # more steps than it needs to end
                    node.connected("p2", "/ip4/127.0.0.1/tcp/1", True)
                    node.disconnected("p2", "this node stops")
                    await trio.lowlevel.checkpoint()
