"""Lookups over a network of peers: they dial, learn who is there, drop who is not, and ban who lies."""

import pytest
import trio
import trio.testing

from node.swarm.kademlia.client import KademliaClient
from node.swarm.kademlia.lookups import Lookups
from node.swarm.kademlia.routing import Routing
from node.swarm.peer_policy import PeerPolicy
from protocols.kademlia.contact import Contact
from protocols.kademlia.lookup_events import LookupOutcome
from protocols.kademlia.lookup_purposes import FirstValue
from protocols.kademlia.message_codec import encode_answer
from protocols.kademlia.messages import FindNode, GetValue, KadAnswer, KadPing, KadRequest, PutValue, Record
from protocols.keys import PrivateKey, peer_id_bytes
from protocols.placement import nearest, place_of_key
from tests.unit.node.swarm.kademlia.peers import Peers

Clock = trio.testing.MockClock
OWN, *NAMES = [PrivateKey.from_seed(bytes([number]) * 32).peer_id for number in range(60)]
KEY = b"a key"


def contact(name: str) -> Contact:
    return Contact(name, (f"/ip4/192.0.2.7/tcp/1/p2p/{name}",))


class Rig:
    """Sixty peers that know each other, of which this node knows three."""

    def __init__(self) -> None:
        self.peers = Peers()
        self.policy = PeerPolicy()
        client = KademliaClient(self.peers, self.policy)
        self.routing = Routing(
            OWN, client, chance=lambda: 0.5, may_enter=lambda peer: True, may_dial=lambda address: True
        )
        self.lookups = Lookups(OWN, self.routing, client)
        self.values: dict[str, bytes] = {}
        for name in NAMES:
            self.peers.answering[name] = lambda request, name=name: self.answer(name, request)  # type: ignore[misc]
        for name in NAMES[:3]:
            self.routing.found(name, contact(name).addresses)

    def answer(self, name: str, request: KadRequest) -> KadAnswer:
        others = [other for other in NAMES if other != name]
        closer = tuple(contact(other) for other in nearest(request.key, others, 20))
        match request:
            case GetValue(key) if name in self.values:
                return KadAnswer(Record(key, self.values[name]), closer)
            case PutValue(record):
                self.values[name] = record.value
                return KadAnswer(record)
        return KadAnswer(closer=closer)


async def test_the_nearest_peers_are_found_and_dialled(autojump_clock: Clock) -> None:
    rig = Rig()
    result = await rig.lookups.find_node(KEY)
    assert result.outcome is LookupOutcome.SETTLED
    assert [each.peer for each in result.closest] == list(nearest(KEY, NAMES, 20))
    assert rig.lookups.ended["settled"] == 1
    assert {peer for peer, _ in rig.peers.dialled} <= {*result.answered, *result.failed, *result.pending}


async def test_a_value_that_few_have_is_found_and_one_that_is_put_is_at_the_nearest(autojump_clock: Clock) -> None:
    rig = Rig()
    assert await rig.lookups.put_value(Record(KEY, b"value")) == 20
    assert sorted(rig.values) == sorted(nearest(KEY, NAMES, 20))
    purpose = FirstValue(lambda value: value == b"value")
    assert (await rig.lookups.get_value(KEY, purpose)).outcome is LookupOutcome.MET
    assert purpose.value == b"value"


async def test_peers_that_are_away_fail_and_the_lookup_ends(autojump_clock: Clock) -> None:
    rig = Rig()
    rig.peers.away.update(NAMES[3:])
    with trio.fail_after(60):
        result = await rig.lookups.find_node(KEY)
    assert {each.peer for each in result.closest} == set(NAMES[:3])


async def test_a_peer_that_answers_wrongly_lies_and_loses_its_place(autojump_clock: Clock) -> None:
    rig = Rig()
    liar = NAMES[0]
    rig.peers.answering[liar] = lambda request: encode_answer(GetValue(b"other"), KadAnswer())
    result = await rig.lookups.find_node(KEY)
    assert result.lied == (liar,)
    assert rig.routing.table.get(liar) is None
    rig.routing.found(liar, contact(liar).addresses)
    assert rig.routing.table.get(liar) is None, "it may not come back at once"
    assert rig.policy.limit_counters.counts.offences == 1


async def test_an_invalid_value_is_a_lie_and_the_valid_one_is_found(autojump_clock: Clock) -> None:
    rig = Rig()
    near = nearest(KEY, NAMES, 20)
    liars = near[:7]
    rig.values = dict.fromkeys(liars, b"forged") | {near[7]: b"value"}
    purpose = FirstValue(lambda value: value == b"value")
    result = await rig.lookups.get_value(KEY, purpose)
    assert purpose.value == b"value"
    assert set(result.lied) <= set(liars)


@pytest.mark.parametrize("bit", [255, 254, 250, 247])
async def test_a_bucket_is_refreshed_by_a_key_in_it(bit: int, autojump_clock: Clock) -> None:
    rig = Rig()
    place = rig.routing.table.own_place ^ (1 << bit) ^ 12345
    await rig.lookups.refresh(place)
    key = next(request.key for _, request in rig.peers.asked if isinstance(request, FindNode))
    distance = place_of_key(key) ^ rig.routing.table.own_place
    assert distance.bit_length() == bit + 1


async def test_the_bucket_of_this_node_is_refreshed_by_its_own_id(autojump_clock: Clock) -> None:
    rig = Rig()
    await rig.lookups.refresh(rig.routing.table.own_place)
    assert {request for _, request in rig.peers.asked} == {FindNode(peer_id_bytes(OWN))}


async def test_a_lookup_that_is_cancelled_leaves_nothing_behind(autojump_clock: Clock) -> None:
    rig = Rig()
    rig.peers.answering = dict.fromkeys(NAMES, lambda request: None)
    with trio.move_on_after(0.1):
        await rig.lookups.find_node(KEY)
    assert not rig.lookups.ended


async def test_quiet_contacts_are_pinged_and_the_table_is_refreshed(autojump_clock: Clock) -> None:
    rig = Rig()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.routing.run, rig.lookups.refresh)
        await trio.sleep(2 * 3600.0)
        nursery.cancel_scope.cancel()
    kinds = {type(request) for _, request in rig.peers.asked}
    assert kinds >= {KadPing, FindNode}
    assert len(rig.routing.table) == 3
