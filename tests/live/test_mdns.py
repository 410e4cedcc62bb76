"""The mDNS finder on this machine's loopback interface: real packets, and what strangers may send."""

import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator, Collection, Iterator

import pytest
import trio

from discovery.interfaces import Interface
from discovery.mdns_finder import QUEUE_MAX, MdnsFinder
from discovery.mdns_inbox import MdnsInbox
from discovery.mdns_records import RecordFault, service_of
from discovery.mdns_table import RECORDS_PER_SENDER_MAX
from protocols.keys import PrivateKey
from protocols.policy.sighting import Sighting, Source
from tests.until import block_until, until

PORT = 5353
GROUP = "224.0.0.251"
LOOPBACK = Interface(name="lo", index=1, ip4="127.0.0.1")


class This:
    """What a node tells of itself."""

    def __init__(self, network: str, host: str = "192.0.2.1") -> None:
        self.peer_id = PrivateKey.from_seed(os.urandom(32)).peer_id
        self.name = "node"
        self.network = network
        self.agent = "test/1"
        self._host = host
        self._changed = trio.Event()

    def capabilities(self) -> tuple[str, ...]:
        return ()

    def addresses(self, *, on_this_machine: bool = False) -> tuple[str, ...]:
        return (f"/ip4/{self._host}/tcp/4001/p2p/{self.peer_id}",)

    def move(self, host: str) -> None:
        self._host = host
        self._changed.set()
        self._changed = trio.Event()

    async def changed(self) -> None:
        await self._changed.wait()


class Seen:
    """`Sightings` that remembers which addresses of which peers are known."""

    def __init__(self) -> None:
        self.peers: dict[str, tuple[str, ...]] = {}

    def saw(self, sighting: Sighting) -> None:
        assert sighting.source is Source.MDNS
        self.peers[sighting.peer] = sighting.addresses

    def lost(self, peer: str, source: Source) -> None:
        assert source is Source.MDNS
        self.peers.pop(peer, None)


class Running:
    def __init__(self, this: This, seen: Seen, finder: MdnsFinder) -> None:
        self.this, self.seen, self.finder = this, seen, finder

    def count(self, name: str) -> int:
        return self.finder.health().counts[name]


@pytest.fixture
def network() -> str:
    """A swarm of its own for each test: other runs on this machine have other services."""
    return f"test-{os.urandom(8).hex()}"


@contextlib.asynccontextmanager
async def running(
    network: str, *, interfaces: Collection[Interface] = (LOOPBACK,), host: str = "192.0.2.1"
) -> AsyncIterator[Running]:
    this, seen = This(network, host), Seen()
    finder = MdnsFinder(
        this, instance=os.urandom(16).hex(), chance=lambda: 0.0, interfaces=lambda hosts: tuple(interfaces)
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(finder.run, seen)
        yield Running(this, seen, finder)
        nursery.cancel_scope.cancel()


async def test_nodes_find_each_other_follow_a_move_and_see_a_leave(network: str) -> None:
    async with running(network) as one:
        async with running(network, host="192.0.2.2") as two:
            await until(lambda: one.seen.peers.get(two.this.peer_id) == two.this.addresses())
            await until(lambda: two.seen.peers.get(one.this.peer_id) == one.this.addresses())
            two.this.move("192.0.2.3")
            await until(lambda: one.seen.peers.get(two.this.peer_id) == two.this.addresses())
        await until(lambda: not one.seen.peers, what="the node that left is lost")
        assert one.finder.health().faults == ()
        await until(lambda: one.count("own_heard") and one.count("questions"))


async def test_networks_of_other_names_do_not_see_each_other(network: str) -> None:
    async with running(network) as one, running(network + "-other") as other, running(network) as two:
        await until(lambda: one.seen.peers and two.seen.peers)
        assert other.this.peer_id not in one.seen.peers and not other.seen.peers


async def test_a_finder_that_was_stopped_may_run_again(network: str) -> None:
    async with running(network) as one:
        other = MdnsFinder(This(network), instance="again", chance=lambda: 0.0, interfaces=lambda _: (LOOPBACK,))
        for _ in range(2):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(other.run, Seen())
                await until(lambda: one.seen.peers)
                nursery.cancel_scope.cancel()
            await until(lambda: not one.seen.peers)


# -- strangers --------------------------------------------------------------------------------------------------------


def name(text: str) -> bytes:
    labels = [label.encode() for label in text.strip(".").split(".")]
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"


def resource(owner: str, kind: int, data: bytes, ttl: int = 120) -> bytes:
    return name(owner) + struct.pack("!HHIH", kind, 1, ttl, len(data)) + data


def answer(service: str, instance: str, *texts: str, ttl: int = 120, is_one_record: bool = False) -> bytes:
    """A response as @libp2p/mdns sends it: one PTR record, and a TXT record for each address, or one for all."""
    full = f"{instance}.{service}"
    strings = [bytes((len(text),)) + text.encode() for text in texts]
    records = [resource(service, 12, name(full), ttl)]
    records += [resource(full, 16, data, ttl) for data in ([b"".join(strings)] if is_one_record else strings)]
    return struct.pack("!HHHHHH", 0, 0x8400, 0, len(records), 0, 0) + b"".join(records)


@pytest.fixture
def stranger() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        sender.bind(("127.0.0.1", 0))
        yield sender


def dnsaddr(host: str, peer: str) -> str:
    return f"dnsaddr=/ip4/{host}/tcp/4001/p2p/{peer}"


async def test_what_strangers_send_is_dropped_and_counted_and_the_finder_goes_on(
    network: str, stranger: socket.socket
) -> None:
    service, liar = service_of(network), PrivateKey.from_seed(b"\x01" * 32).peer_id
    async with running(network) as one:
        await until(lambda: one.count("own_heard"))
        bad = {
            RecordFault.OWN_ID: answer(service, "own", dnsaddr("192.0.2.66", one.this.peer_id)),
            RecordFault.TOO_MANY_ADDRESSES: answer(
                service, "many", *[dnsaddr("192.0.2.66", liar)] * 70, is_one_record=True
            ),
            RecordFault.MALFORMED: answer(service, "malformed", "dnsaddr=nothing"),
            RecordFault.NOT_USABLE: answer(service, "loopback", dnsaddr("127.0.0.1", liar)),
        }
        junk = [b"", b"\0", os.urandom(600), b"\xff" * 9000, answer(service, "cut", "dnsaddr=x")[:-4]]
        junk.append(struct.pack("!HHHHHH", 0, 0x8400, 0, 65535, 0, 0) + b"\xc0\x0c" * 300)
        for packet in (*junk, *bad.values()):
            stranger.sendto(packet, (GROUP, PORT))
        for fault in bad:
            await until(lambda fault=fault: one.count(f"dropped_{fault}"), what=f"{fault} is counted")
        assert not one.seen.peers
        good = answer(service, "good", dnsaddr("192.0.2.9", liar), dnsaddr("192.0.2.10", liar))
        stranger.sendto(good, (GROUP, PORT))
        await until(lambda: len(one.seen.peers.get(liar, ())) == 2, what="the record with two TXT records is read")
        stranger.sendto(answer(service, "good", dnsaddr("192.0.2.9", liar), ttl=0), (GROUP, PORT))
        await until(lambda: not one.seen.peers)


async def test_a_flood_is_cut_short_and_other_senders_are_heard(network: str, stranger: socket.socket) -> None:
    service = service_of(network)
    async with running(network) as one:
        await until(lambda: one.count("own_heard"))
        for number in range(300):
            peer = PrivateKey.from_seed(number.to_bytes(32, "big")).peer_id
            stranger.sendto(answer(service, f"flood{number}", dnsaddr("192.0.2.66", peer)), (GROUP, PORT))
            await trio.sleep(0)
        await until(lambda: one.count("dropped_share"))
        assert len(one.seen.peers) < 300


async def test_what_finds_no_room_while_the_node_is_busy_comes_with_the_next_answer(network: str) -> None:
    service = service_of(network)
    peers = [PrivateKey.from_seed(number.to_bytes(32, "big")).peer_id for number in range(QUEUE_MAX + 100)]

    def answer_all() -> None:
        for number, peer in enumerate(peers):
            host = f"127.0.1.{1 + number // (RECORDS_PER_SENDER_MAX // 2)}"
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
                sender.bind((host, 0))
                sender.sendto(answer(service, f"busy{number}", dnsaddr("192.0.2.9", peer)), (GROUP, PORT))

    async with running(network) as one:
        await until(lambda: one.count("own_heard"))

        def is_full() -> int:
            answer_all()
            return one.count("dropped_queue_full")

        def are_all_seen() -> bool:
            answer_all()
            return len(one.seen.peers) == len(peers)

        block_until(is_full)  # trio's thread does nothing else meanwhile
        await until(are_all_seen)


# -- a machine that does not let it ------------------------------------------------------------------------------------


async def test_a_port_that_is_taken_is_a_line_of_health_and_tried_again(
    network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("discovery.mdns_finder.RETRY_BASE_SECONDS", 0.05)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        with contextlib.suppress(OSError):
            taken.bind(("0.0.0.0", PORT))
        if not taken.getsockname()[1]:
            pytest.skip("UDP port 5353 of this machine is shared by another program")
        async with running(network) as one:
            await until(lambda: one.finder.health().faults)
            assert "UDP port 5353 is taken" in one.finder.health().faults[0]
            taken.close()
            await until(lambda: not one.finder.health().faults and one.count("own_heard"))


async def test_a_node_that_does_not_hear_itself_says_so(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("discovery.mdns.DEAF_SECONDS", 0.1)
    monkeypatch.setattr("discovery.mdns.RESCAN_SECONDS", 0.1)
    async with running(network) as two:
        with monkeypatch.context() as deaf:
            deaf.setattr(MdnsInbox, "read", lambda *_: False)  # as where a firewall drops what comes in
            async with running(network) as one:
                await until(lambda: one.finder.health().faults)
                assert "own messages to UDP port 5353 do not come back on lo" in one.finder.health().faults[0]
                deaf.undo()
                two.this.move("192.0.2.7")  # it is announced again, which others hear
                one.this.move("192.0.2.8")
                await until(lambda: not one.finder.health().faults and one.seen.peers)


async def test_a_machine_without_an_interface_says_so_until_it_has_one(network: str) -> None:
    interfaces: list[Interface] = []
    async with running(network, interfaces=interfaces) as one, running(network) as two:
        await until(lambda: one.finder.health().faults)
        assert "no network interface" in one.finder.health().faults[0]
        interfaces.append(LOOPBACK)
        await until(lambda: one.this.peer_id in two.seen.peers and not one.finder.health().faults)
