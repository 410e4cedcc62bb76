"""The DHT's client: it dials when need be, within its deadline, and tells silence, refusal and lies apart."""

import pytest
import trio
import trio.testing

from node.swarm.kademlia.client import DIALS_MAX, KademliaClient, WrongAnswer
from node.swarm.peer_policy import PeerPolicy
from node.swarm.rpc import Silent, Unreachable
from protocols.kademlia.contact import Contact
from protocols.kademlia.message_codec import encode_answer
from protocols.kademlia.messages import CONTACTS_MAX, AddProvider, FindNode, GetValue, KadAnswer, KadPing
from protocols.keys import PrivateKey
from tests.unit.node.swarm.kademlia.peers import Peers

Clock = trio.testing.MockClock
NAMES = [PrivateKey.from_seed(bytes([number]) * 32).peer_id for number in range(CONTACTS_MAX + 6)]
PEER = Contact(NAMES[0], (f"/ip4/192.0.2.7/tcp/1/p2p/{NAMES[0]}",))
FIND = FindNode(b"key")


class Rig:
    def __init__(self) -> None:
        self.peers = Peers()
        self.policy = PeerPolicy()
        self.client = KademliaClient(self.peers, self.policy)

    @property
    def offences(self) -> int:
        return self.policy.limit_counters.counts.offences


async def test_a_peer_is_dialled_once_and_asked(autojump_clock: Clock) -> None:
    rig = Rig()
    closer = (Contact(NAMES[1]),)
    rig.peers.answering[PEER.peer] = lambda request: KadAnswer(closer=closer)
    for _ in range(2):
        assert (await rig.client.ask(PEER, FIND, timeout=1.0)).closer == closer
    assert rig.peers.dialled == [(PEER.peer, PEER.addresses)]
    assert (rig.client.asked["FindNode"], rig.client.dialled) == (2, 1)


async def test_a_peer_that_cannot_be_connected_is_unreachable(autojump_clock: Clock) -> None:
    rig = Rig()
    rig.peers.away.add(PEER.peer)
    for contact in (PEER, Contact(NAMES[1])):
        with pytest.raises(Unreachable):
            await rig.client.ask(contact, FIND, timeout=1.0)
    assert (rig.client.failed["FindNode"], rig.client.dials_failed) == (2, 1)


async def test_a_silent_peer_is_waited_for_until_the_deadline_dial_included(autojump_clock: Clock) -> None:
    rig = Rig()
    rig.peers.answering[PEER.peer] = lambda request: None
    rig.peers.dial_seconds = 0.4
    with pytest.raises(Silent):
        await rig.client.ask(PEER, FIND, timeout=1.0)
    assert trio.current_time() == pytest.approx(1.0)
    assert rig.offences == 0


async def test_an_answer_to_something_else_is_wrong_and_blamed(autojump_clock: Clock) -> None:
    rig = Rig()
    rig.peers.answering[PEER.peer] = lambda request: encode_answer(GetValue(b"key"), KadAnswer())
    with pytest.raises(WrongAnswer):
        await rig.client.ask(PEER, FIND, timeout=1.0)
    assert (rig.offences, rig.policy.limit_counters.counts.kad_malformed) == (1, 1)


async def test_contacts_beyond_the_most_are_left_out_and_counted(autojump_clock: Clock) -> None:
    rig = Rig()
    rig.peers.answering[PEER.peer] = lambda request: KadAnswer(closer=tuple(Contact(name) for name in NAMES))
    answer = await rig.client.ask(PEER, FIND, timeout=1.0)
    assert len(answer.closer) == CONTACTS_MAX
    assert rig.policy.limit_counters.counts.kad_contacts_left_out == len(NAMES) - CONTACTS_MAX


async def test_a_provider_is_told_of_and_a_ping_says_that_it_arrived(autojump_clock: Clock) -> None:
    rig = Rig()
    add = AddProvider(b"key", (PEER,))
    await rig.client.ask(PEER, add, timeout=1.0)
    assert rig.peers.asked == [(PEER.peer, add), (PEER.peer, KadPing())]


async def test_a_peer_that_this_node_does_not_deal_with_is_neither_dialled_nor_asked(autojump_clock: Clock) -> None:
    peers = Peers()
    client = KademliaClient(peers, PeerPolicy(), may_ask=lambda peer: False)
    with pytest.raises(Unreachable, match="does not deal"):
        await client.ask(PEER, FIND, timeout=1.0)
    assert not peers.dialled


async def test_dials_under_way_are_bounded(autojump_clock: Clock) -> None:
    rig = Rig()
    rig.peers.dial_seconds = 0.5

    async def ask(name: str) -> None:
        await rig.client.ask(Contact(name, (f"/ip4/192.0.2.7/tcp/1/p2p/{name}",)), FIND, timeout=5.0)

    async with trio.open_nursery() as nursery:
        for name in NAMES:
            nursery.start_soon(ask, name)
        await trio.testing.wait_all_tasks_blocked()
        assert len(rig.peers.dialled) == DIALS_MAX
