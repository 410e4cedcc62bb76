"""The announcer: the nearest peers are told of each key, with few lookups, and each peer of many keys at once."""

from hashlib import sha256

import pytest
import trio
import trio.testing

from node.swarm.kademlia.announcer import KEYS_AT_ONCE, REGION_SECONDS, ProviderAnnouncer
from node.swarm.kademlia.client import KademliaClient
from protocols.kademlia.contact import Contact
from protocols.kademlia.messages import AddProvider, FindNode, KadPing
from protocols.placement import nearest
from tests.unit.node.swarm.kademlia.test_lookups import NAMES, OWN, Rig, contact

Clock = trio.testing.MockClock
KEYS = [b"\x12\x20" + sha256(bytes([number])).digest() for number in range(200)]


class Announcing(Rig):
    def __init__(self) -> None:
        super().__init__()
        client = KademliaClient(self.peers, self.policy)
        self.announcer = ProviderAnnouncer(
            self.routing, self.lookups, client, own_for=lambda _: Contact(OWN, ("/own",))
        )

    def told(self, key: bytes) -> set[str]:
        return {peer for peer, request in self.peers.asked if isinstance(request, AddProvider) and request.key == key}

    def count(self, kind: type) -> int:
        return sum(isinstance(request, kind) for _, request in self.peers.asked)


async def test_the_nearest_peers_are_told_of_one_key(autojump_clock: Clock) -> None:
    rig = Announcing()
    assert await rig.announcer.announce(KEYS[:1], timeout=10.0) == 20
    assert rig.told(KEYS[0]) == set(nearest(KEYS[0], NAMES, 20))
    assert (rig.announcer.taken, rig.announcer.failed) == (1, 0)


async def test_of_many_keys_few_lookups_find_peers_that_are_near_to_each(autojump_clock: Clock) -> None:
    rig = Announcing()
    assert await rig.announcer.announce(KEYS, timeout=60.0) == 20 * len(KEYS)
    assert rig.announcer.lookups <= 16
    assert len(rig.peers.asked) <= 25 * len(KEYS), "a lookup for each key would take 60"
    for key in KEYS:
        near = nearest(key, NAMES, 20)
        assert len(rig.told(key) & {*near}) >= 10 and near[0] in rig.told(key), "whoever looks it up asks one of them"
    assert rig.count(KadPing) < 10 * len(NAMES)
    assert max(len(run) for run in runs(rig)) <= KEYS_AT_ONCE


def runs(rig: Announcing) -> list[list[bytes]]:
    """The keys that each peer was told between two of its pings."""
    found: dict[str, list[list[bytes]]] = {}
    for peer, request in rig.peers.asked:
        if isinstance(request, KadPing):
            found[peer].append([])
        elif isinstance(request, AddProvider):
            found.setdefault(peer, [[]])[-1].append(request.key)
    return [run for its in found.values() for run in its]


async def test_what_a_lookup_found_holds_for_an_hour_or_until_the_table_changes(autojump_clock: Clock) -> None:
    rig = Announcing()
    for _ in range(2):
        await rig.announcer.announce(KEYS[:1], timeout=10.0)
    assert rig.announcer.lookups == 1
    await trio.sleep(REGION_SECONDS)
    await rig.announcer.announce(KEYS[:1], timeout=10.0)
    assert rig.announcer.lookups == 2
    rig.routing.found(NAMES[7], contact(NAMES[7]).addresses)
    await rig.announcer.announce(KEYS[:1], timeout=10.0)
    assert rig.announcer.lookups == 3


async def test_peers_that_are_away_take_nothing_and_hold_up_nothing(autojump_clock: Clock) -> None:
    rig = Announcing()
    near = nearest(KEYS[0], NAMES, 20)
    for name in near[:5]:
        rig.peers.answering[name] = lambda request, name=name: (  # type: ignore[misc]
            rig.answer(name, request) if isinstance(request, FindNode) else None
        )
    with trio.fail_after(20.0):
        assert await rig.announcer.announce(KEYS[:1], timeout=15.0) == 15
    rig.peers.answering = dict.fromkeys(NAMES, lambda request: None)
    with trio.fail_after(3.1):
        assert await rig.announcer.announce(KEYS[1:9], timeout=3.0) == 0
    assert (rig.announcer.taken, rig.announcer.failed) == (1, 8)


@pytest.mark.parametrize("count", [1, 5])
async def test_a_node_that_knows_nobody_announces_nothing(count: int, autojump_clock: Clock) -> None:
    rig = Announcing()
    for name in NAMES[:3]:
        rig.routing.stopped(name)
    assert await rig.announcer.announce(KEYS[:count], timeout=10.0) == 0
    assert not rig.peers.asked
