"""The DHT's server: what each message of a peer is answered with, and what is refused and blamed."""

from typing import ClassVar

import pytest

from node.swarm.kademlia.contacts import Contacts
from node.swarm.kademlia.provider_book import ProviderBook
from node.swarm.kademlia.server import KademliaServer
from node.swarm.peer_policy import PeerPolicy
from protocols.errors import BadSignature, Internal, Malformed
from protocols.kademlia.contact import Contact
from protocols.kademlia.message_codec import decode_answer, encode_request
from protocols.kademlia.messages import (
    CONTACTS_MAX,
    AddProvider,
    FindNode,
    GetProviders,
    GetValue,
    KadAnswer,
    KadPing,
    KadRequest,
    PutValue,
    Record,
)
from protocols.keys import PrivateKey, peer_id_bytes
from protocols.placement import nearest, place_of_peer

OWN, ASKER, *OTHERS = [PrivateKey.from_seed(bytes([number]) * 32).peer_id for number in range(30)]
HERE, LAN, WORLD = "/ip4/127.0.0.1/tcp/5000", "/ip4/192.168.1.9/tcp/5000", "/ip4/8.8.8.8/tcp/5000"
KEY = b"some key"


class Table:
    """A routing table in which every other peer is, each at three addresses."""

    contacts: ClassVar = {
        peer: Contact(peer, tuple(f"{route}/p2p/{peer}" for route in (HERE, LAN, WORLD))) for peer in (ASKER, *OTHERS)
    }

    def closest(self, place: int, n: int) -> tuple[Contact, ...]:
        found = sorted(self.contacts, key=lambda peer: place_of_peer(peer) ^ place)
        return tuple(self.contacts[peer] for peer in found[:n])

    def get(self, peer: str) -> Contact | None:
        return self.contacts.get(peer)


class Values:
    """`Records` in a dict. `refusal` is raised for whatever is put."""

    def __init__(self) -> None:
        self.values: dict[bytes, Record] = {}
        self.held: set[bytes] = set()
        self.refusal: Exception | None = None

    async def get(self, key: bytes) -> Record | None:
        return self.values.get(key)

    async def put(self, peer: str, record: Record) -> Record:
        if self.refusal:
            raise self.refusal
        return self.values.setdefault(record.key, record)

    async def holds(self, key: bytes) -> bool:
        return key in self.held


class Rig:
    def __init__(self) -> None:
        self.values = Values()
        self.providers = ProviderBook()
        self.policy = PeerPolicy()
        self.heard: list[str] = []
        contacts = Contacts(
            OWN,
            Table(),
            is_here=lambda remote: remote == HERE,
            own_addresses=lambda remote: (f"{LAN}/p2p/{OWN}",),
        )
        self.server = KademliaServer(
            contacts,
            self.values,
            self.providers,
            self.policy,
            on_found=lambda peer, addresses: None,
            on_stopped=lambda peer: None,
            on_heard=self.heard.append,
        )

    async def ask(self, request: KadRequest, *, remote: str = LAN, asker: str = ASKER) -> KadAnswer | None:
        encoded = await self.server.answer(asker, remote, encode_request(request))
        return None if encoded is None else decode_answer(encoded, request)

    @property
    def offences(self) -> int:
        return self.policy.limit_counters.counts.offences


@pytest.mark.parametrize("request_", [FindNode(KEY), GetValue(KEY), GetProviders(KEY)])
async def test_the_nearest_peers_are_named_without_the_asker(request_: KadRequest) -> None:
    answer = await Rig().ask(request_)
    assert answer is not None
    assert [each.peer for each in answer.closer] == list(nearest(KEY, OTHERS, CONTACTS_MAX))


@pytest.mark.parametrize(
    ("remote", "routes"),
    [(HERE, (HERE, LAN, WORLD)), (LAN, (LAN, WORLD)), (WORLD, (WORLD,)), ("/memory/7", (LAN, WORLD))],
)
async def test_an_asker_is_told_the_addresses_that_can_be_of_use_to_it(remote: str, routes: tuple[str, ...]) -> None:
    answer = await Rig().ask(FindNode(KEY), remote=remote)
    assert answer is not None
    (first, *_) = answer.closer
    assert first.addresses == tuple(f"{route}/p2p/{first.peer}" for route in routes)


async def test_this_node_names_itself_when_it_is_looked_for() -> None:
    answer = await Rig().ask(FindNode(peer_id_bytes(OWN)))
    assert answer is not None
    assert answer.closer[0] == Contact(OWN, (f"{LAN}/p2p/{OWN}",))
    assert len(answer.closer) == CONTACTS_MAX


async def test_a_value_is_put_and_got_and_a_put_is_answered_with_what_is_there() -> None:
    rig = Rig()
    first, second = Record(KEY, b"first", "t"), Record(KEY, b"second", "t")
    assert await rig.ask(GetValue(KEY)) is not None
    for put in (first, first, second):
        answer = await rig.ask(PutValue(put))
        assert answer is not None and answer.record == first
    answer = await rig.ask(GetValue(KEY))
    assert answer is not None and answer.record == first and answer.closer


async def test_a_refused_value_ends_the_stream() -> None:
    rig = Rig()
    rig.values.refusal = BadSignature("forged")
    with pytest.raises(BadSignature):
        await rig.ask(PutValue(Record(KEY, b"value")))
    assert (rig.server.failed["PutValue"], rig.server.served["PutValue"]) == (1, 0)


async def test_an_error_of_this_node_ends_the_stream_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    rig.values.refusal = RuntimeError("a bug")
    with pytest.raises(Internal):
        await rig.ask(PutValue(Record(KEY, b"value")))
    assert "a bug" in caplog.text
    assert rig.offences == 0


async def providers(rig: Rig, key: bytes = KEY, *, remote: str = LAN) -> tuple[Contact, ...]:
    answer = await rig.ask(GetProviders(key), asker=OTHERS[0], remote=remote)
    assert answer is not None and answer.closer
    return answer.providers


async def test_a_peer_provides_for_itself_alone_and_gets_no_answer() -> None:
    rig = Rig()
    assert await rig.ask(AddProvider(KEY, (Contact(OTHERS[0]), Contact(ASKER)))) is None
    assert await rig.ask(AddProvider(b"another", (Contact(OTHERS[0]),))) is None
    assert await providers(rig) == (Contact(ASKER, tuple(f"{route}/p2p/{ASKER}" for route in (LAN, WORLD))),)
    assert await providers(rig, b"another") == ()


async def test_addresses_of_a_provider_are_those_that_it_proved_or_said_itself() -> None:
    rig = Rig()
    claimed = f"/ip4/192.168.1.77/tcp/1/p2p/{ASKER}"
    await rig.ask(AddProvider(KEY, (Contact(ASKER, (claimed,)),)))
    assert claimed not in (await providers(rig))[0].addresses, "identity named others"
    unknown = PrivateKey.from_seed(b"u" * 32).peer_id
    of_unknown = tuple(f"/ip4/{host}/tcp/1/p2p/{unknown}" for host in ("127.0.0.1", "192.168.1.78"))
    other = Contact(OTHERS[1], (f"/ip4/192.168.1.79/tcp/1/p2p/{OTHERS[1]}",))
    await rig.ask(AddProvider(b"k", (Contact(unknown, of_unknown), other)), asker=unknown)
    assert await providers(rig, b"k") == (Contact(unknown, of_unknown[1:]),)
    assert await providers(rig, b"k", remote=HERE) == (Contact(unknown, of_unknown),)
    assert (await providers(rig, b"k", remote=WORLD))[0].addresses == ()


async def test_this_node_provides_what_it_holds_beside_those_that_said_so() -> None:
    rig = Rig()
    own = Contact(OWN, (f"{LAN}/p2p/{OWN}",))
    await rig.ask(AddProvider(KEY, (Contact(ASKER),)))
    rig.values.held.add(KEY)
    assert [each.peer for each in await providers(rig)] == [OWN, ASKER]
    rig.providers.add(KEY, Contact(OWN))
    assert (await providers(rig)).count(own) == 1
    for number in range(CONTACTS_MAX + 5):
        rig.providers.add(KEY, Contact(PrivateKey.from_seed(bytes([90 + number]) * 32).peer_id))
    assert len(await providers(rig)) == CONTACTS_MAX


async def test_a_provider_that_this_node_does_not_deal_with_is_not_named() -> None:
    rig = Rig()
    await rig.ask(AddProvider(KEY, (Contact(ASKER),)))
    rig.providers.add(KEY, Contact(OWN))
    rig.policy.set_lists(deny=[ASKER], allow=[OTHERS[0]])
    assert [each.peer for each in await providers(rig)] == [OWN]


async def test_a_ping_is_answered_and_each_request_is_a_sign_of_life() -> None:
    rig = Rig()
    assert await rig.ask(KadPing()) == KadAnswer()
    assert rig.heard == [ASKER]


@pytest.mark.parametrize("message", [b"\xff\xff", b"\x08\x09", b"\x08\x04", b""])
async def test_what_is_no_request_is_refused_and_blamed(message: bytes) -> None:
    rig = Rig()
    with pytest.raises(Malformed):
        await rig.server.answer(ASKER, LAN, message)
    assert (rig.offences, rig.policy.limit_counters.counts.kad_malformed) == (1, 1)
    assert not rig.heard
