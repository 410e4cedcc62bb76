"""This node, as others are told of it, while its addresses come and go."""

import trio
import trio.testing

from node.services.membership.this_node import ThisNode
from protocols.policy.own_addresses import AddressRules
from tests.unit.one_end import OneEnd

LAN, NEW, LOOPBACK = (f"/ip4/{host}/tcp/4001/p2p/own" for host in ("10.0.0.7", "10.9.9.9", "127.0.0.1"))


class Moving(OneEnd):
    """A network whose addresses change."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses = (LAN, LOOPBACK)
        self._moved = trio.Event()

    def move(self, *addresses: str) -> None:
        self.addresses = addresses
        self._moved.set()
        self._moved = trio.Event()

    async def addresses_changed(self) -> None:
        await self._moved.wait()


def over(net: OneEnd) -> ThisNode:
    return ThisNode(net, name="n1", network_name="test", rules=AddressRules())


async def test_who_it_is() -> None:
    node = over(Moving())
    assert (node.peer_id, node.name, node.network) == ("own", "n1", "test")
    assert node.agent.startswith("bzzz/")


async def test_a_peer_on_this_machine_is_told_loopback_addresses_and_another_is_not() -> None:
    node = over(Moving())
    assert node.addresses_for("/ip4/127.0.0.1/tcp/50000") == (LAN, LOOPBACK)
    assert node.addresses_for("/ip4/10.0.0.7/tcp/50000") == (LAN, LOOPBACK), "from the machine's own address"
    assert node.addresses_for("/ip4/10.0.0.8/tcp/50000") == (LAN,)
    assert node.addresses_for("") == (LAN,)


async def test_a_waiter_is_woken_when_the_addresses_for_others_change() -> None:
    net = Moving()
    node, changes = over(net), 0

    async def count() -> None:
        nonlocal changes
        while True:
            await node.changed()
            changes += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(count)
        await trio.testing.wait_all_tasks_blocked()
        for addresses, expected in (((LAN,), 0), ((NEW,), 1), ((NEW, LOOPBACK), 1), ((), 2), ((LAN,), 3)):
            net.move(*addresses)
            await trio.testing.wait_all_tasks_blocked()
            assert changes == expected, addresses
        for peer in ("a", "b"):
            node.observe(peer, "/ip4/203.0.113.7/tcp/50000", dialled=True)
        await trio.testing.wait_all_tasks_blocked()
        assert changes == 4
        assert node.addresses() == (LAN, "/ip4/203.0.113.7/tcp/4001/p2p/own")
        nursery.cancel_scope.cancel()
