"""Neighbours: a peer may come at any moment, also while the node stops, and no text of a peer ends the node."""

from collections.abc import Sequence

import pytest
import trio
import trio.testing

from discovery.finder import Finder, FinderHealth, Sightings
from node.services.membership.neighbours import Neighbours
from node.services.membership.store_finder import StoreFinder
from node.services.membership.this_node import ThisNode
from node.store.members import Member
from node.store.memory.store import MemoryStore
from node.swarm.members import Members
from node.swarm.rpc import Rpc
from protocols.keys import PrivateKey
from protocols.messages import GetMembers, Hello
from protocols.policy.own_addresses import AddressRules
from protocols.policy.sighting import Sighting, Source
from tests.unit.announcing import silent_finder
from tests.unit.one_end import OneEnd

ROUNDS = 50
"""Trio runs ready tasks in a random order: in so many rounds every order occurs."""


PEER = PrivateKey.from_seed(bytes(32)).peer_id
GOOD = f"/dns4/good.example/tcp/1/p2p/{PEER}"
BAD = f"/dns4/a..b/tcp/1/p2p/{PEER}"


class Picky(OneEnd):
    """A network that never dials a name with an empty label, and notes what it is to dial."""

    def __init__(self) -> None:
        super().__init__()
        self.dialled: list[tuple[str, ...]] = []
        self.looked_for_twin: list[str] = []

    async def look_for_twin(self, addresses: Sequence[str]) -> None:
        self.looked_for_twin += addresses

    def address_fault(self, address: str) -> str:
        return "an empty label" if ".." in address else ""

    async def dial(self, addresses: Sequence[str], *, timeout: float) -> str:
        self.dialled.append(tuple(addresses))
        return await super().dial(addresses, timeout=timeout)


class Raising(OneEnd):
    async def dial(self, addresses: Sequence[str], *, timeout: float) -> str:
        raise UnicodeError("label empty or too long")


class Reports:
    """A finder that reports one sighting."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = addresses

    def health(self) -> FinderHealth:
        return FinderHealth(kind="reports")

    async def run(self, sightings: Sightings) -> None:
        sightings.saw(Sighting(peer=PEER, addresses=self._addresses, source=Source.MDNS))


def neighbours(
    net: OneEnd, *, members: Members | None = None, store: MemoryStore | None = None, finders: Sequence[Finder] = ()
) -> Neighbours:
    return Neighbours(
        rpc=Rpc(net),
        members=members or Members(net.peer_id, replication=20),
        store=store or MemoryStore(log_id="ab" * 8),
        this_node=ThisNode(net, name="n1", network_name="test", rules=AddressRules()),
        forget_seconds=24 * 3600.0,
        finders=finders,
        announce=silent_finder(),
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


async def test_addresses_that_can_never_be_dialled_are_left_out_wherever_they_come_from(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    net = Picky()
    here = neighbours(net, finders=(Reports(BAD, GOOD), Reports(BAD)))
    async with trio.open_nursery() as nursery:
        await nursery.start(here.run)
        await trio.testing.wait_all_tasks_blocked()
        assert net.dialled == [(GOOD,)]
        here.answer_hello(PEER, Hello("test", "n2", "log", 0, (BAD, GOOD)))
        (known,) = here.answer_members("p3", GetMembers()).members  # type: ignore[union-attr]
        assert known.addresses == (GOOD,)
        nursery.cancel_scope.cancel()
    assert f"{PEER}: address that is not dialled: {BAD}: an empty label" in caplog.text
    assert f"source mdns: address that is not dialled: {BAD}: an empty label" in caplog.text
    assert caplog.text.count("that is not dialled") == 2, "one line for each source"


async def test_what_was_stored_of_a_member_and_is_not_accepted_today_is_dropped_at_the_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    net, store = Picky(), MemoryStore(log_id="ab" * 8)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        stored = Member(peer=PEER, name="red\x1b[31m", addresses=(BAD, GOOD), first_seen_ms=0, last_seen_ms=0)
        await store.save_member(stored)
        members = Members(net.peer_id, replication=20, members=store.members())
        finder = StoreFinder(members, forget_seconds=24 * 3600.0, now_ms=lambda: 0)
        here = neighbours(net, members=members, store=store, finders=[finder])
        await nursery.start(here.run)
        await trio.testing.wait_all_tasks_blocked()
        (kept,) = store.members()
        nursery.cancel_scope.cancel()
    assert (kept.name, kept.addresses) == ("", (GOOD,))
    assert net.dialled == [(GOOD,)]
    assert f"source store: address that is not dialled: {BAD}: an empty label" in caplog.text
    assert f"the stored name of {PEER} cannot be a name" in caplog.text


async def test_a_dial_that_raises_what_no_network_should_raise_is_a_failed_dial(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(neighbours(Raising(), finders=(Reports(GOOD),)).run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert "label empty or too long" in caplog.text


async def test_a_hello_is_answered_with_the_addresses_that_it_does_not_name_any_more() -> None:
    node = neighbours(Picky())
    other = GOOD.replace("good", "other")
    async with trio.open_nursery() as nursery:
        await nursery.start(node.run)
        known_at = []
        for addresses in ((GOOD,), (GOOD,), (other,), (GOOD, other)):
            reply = node.answer_hello(PEER, Hello("test", "n2", "log", 0, addresses))
            assert isinstance(reply, Hello)
            known_at.append(reply.known_at)
        nursery.cancel_scope.cancel()
    assert known_at == [(), (), (GOOD,), ()], "the last one names both"


async def test_a_twin_is_looked_for_where_a_peer_knows_this_node_from_and_it_is_not() -> None:
    net = Picky()
    node = neighbours(net)
    async with trio.open_nursery() as nursery:
        await nursery.start(node.run)
        node.answer_hello(PEER, Hello("test", "n2", "log", 0, (), net.addresses))
        await trio.testing.wait_all_tasks_blocked()
        assert net.looked_for_twin == []
        node.answer_hello(PEER, Hello("test", "n2", "log", 0, (), (*net.addresses, GOOD)))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert net.looked_for_twin == [GOOD]
