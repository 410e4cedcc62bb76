"""What still ends or blocks a plain libp2p 0.8.1 host.

The other half is `tests/unit/node/swarm/libp2p/test_hardening.py`. Each test here does to a plain host what another
test does to this project's host, and expects the worst. A test that fails shows that a release of libp2p has fixed that
point: then the code that closes it here may go, and the test with it.
"""

import contextlib
import gc
import math
import os
import socket
import warnings
from collections.abc import AsyncIterator, Iterator

import libp2p
import pytest
import trio
import trio.testing
from google.protobuf.message import DecodeError
from libp2p.abc import IHost, INetStream
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.network.exceptions import SwarmException
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from libp2p.peer.peerstore import PeerStore
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pubsub import Pubsub
from libp2p.stream_muxer.yamux.yamux import Yamux
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr

from node.swarm.libp2p import release, tcp
from node.swarm.libp2p.gossipsub_parts import PROTOCOLS
from node.swarm.libp2p.multistream import propose
from node.swarm.libp2p.upgrade import Upgrader
from node.swarm.libp2p.yamux import YamuxConnection
from node.swarm.libp2p.yamux_frame import WINDOW
from tests.live.echo import ECHO
from tests.live.intruders import plain_host
from tests.live.swarm_peers import AGREES, mute
from tests.until import until

release.configure_logging()
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # a plain host leaves sockets open
LIFE = 250
"""Connections that a plain host takes."""
LONG = 600.0
"""Seconds. This project's host gives up a silent peer after 5, and an address when its caller's time is over."""
OPENING = b"\x13/multistream/1.0.0\n" + bytes([len(ECHO) + 1]) + ECHO.encode() + b"\n"
"""The opening of a stream, and the agreement of a plain host to it."""


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """Collect what a plain host leaves open, so that it is no leak of the next test."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def address_of(host: IHost) -> Multiaddr:
    return Multiaddr(str(host.get_addrs()[0]).split("/p2p/")[0])


async def connected_tcp(host: IHost) -> tcp.TcpConnection:
    return await tcp.connect(socket.AF_INET, "127.0.0.1", int(str(address_of(host)).split("/")[4]))


@contextlib.asynccontextmanager
async def frozen(host: IHost) -> AsyncIterator[YamuxConnection]:
    """A peer after its handshake that reads nothing until its muxer is started."""
    with trio.fail_after(30):
        mux = await Upgrader(os.urandom(32)).outbound(await connected_tcp(host))
    try:
        yield mux
    finally:
        mux.abort("enough")


@contextlib.asynccontextmanager
async def stranger(host: IHost) -> AsyncIterator[YamuxConnection]:
    async with frozen(host) as mux, trio.open_nursery() as nursery:
        nursery.start_soon(mux.start)
        yield mux
        nursery.cancel_scope.cancel()


async def until_it_ends() -> None:
    """Wait for the end of the host; raises `trio.TooSlowError` when it does not come."""
    with trio.fail_after(30):
        await trio.sleep_forever()


async def test_s1_it_takes_so_many_connections_in_its_life() -> None:
    connections = 0
    with contextlib.suppress(BaseExceptionGroup):
        async with plain_host() as host:
            while connections <= LIFE:
                async with stranger(host) as mux:
                    connections += 1
                    mux.abort("enough")
    assert connections == LIFE


async def test_s2_a_stream_handler_that_raises_ends_it() -> None:
    async def fail(stream: INetStream) -> None:
        raise RuntimeError("a handler with a bug")

    with pytest.raises(BaseExceptionGroup) as caught:
        async with plain_host() as host:
            host.set_stream_handler(ECHO, fail)
            async with stranger(host) as mux:
                await propose(await mux.open_stream(), ECHO)
                await until_it_ends()
    assert caught.group_contains(RuntimeError, match="a handler with a bug")


async def test_s3_a_few_bytes_that_are_not_utf8_end_it() -> None:
    with pytest.raises(BaseExceptionGroup) as caught:
        async with plain_host() as host, stranger(host) as mux:
            await (await mux.open_stream()).write(b"\x13/multistream/1.0.0\n\x03\xff\xfe\n")
            await until_it_ends()
    assert caught.group_contains(UnicodeDecodeError)


async def test_s4_garbage_on_a_topic_ends_it() -> None:
    with pytest.raises(BaseExceptionGroup) as caught:
        async with plain_host() as host:
            router = GossipSub(protocols=PROTOCOLS, degree=6, degree_low=4, degree_high=12, heartbeat_interval=1)
            pubsub = Pubsub(host, router)
            try:
                async with background_trio_service(pubsub), background_trio_service(router), stranger(host) as mux:
                    await pubsub.wait_until_ready()
                    stream = await mux.open_stream()
                    await propose(stream, *PROTOCOLS)
                    await stream.write(b"\x05\xff\xff\xff\xff\xff")
                    await until_it_ends()
            finally:
                pubsub.seen_messages.stop()
    assert caught.group_contains(DecodeError)


@pytest.mark.parametrize("protocol", ["/plaintext/2.0.0", "/secio/1.0.0"])
async def test_s5_it_accepts_a_connection_without_noise(protocol: str) -> None:
    async with plain_host() as host:
        asker = await connected_tcp(host)
        line = bytes([len(protocol) + 1]) + protocol.encode() + b"\n"
        await asker.write(b"\x13/multistream/1.0.0\n" + line)
        answer = b""
        with trio.fail_after(30):
            while line not in answer:
                answer += await asker.read(100)
        asker.abort()


@contextlib.contextmanager
def jumping_time(clock: trio.testing.MockClock) -> Iterator[None]:
    """Inside, time jumps ahead when nothing happens for a moment, so that every deadline is reached."""
    clock.autojump_threshold = 0.01
    try:
        yield
    finally:
        clock.autojump_threshold = math.inf


@pytest.mark.parametrize("words", [b"", AGREES], ids=["from the start", "after it agreed to noise"])
async def test_s6_a_listener_that_stays_mute_is_given_up_late_or_never(
    mock_clock: trio.testing.MockClock, words: bytes
) -> None:
    """A listener that is mute from the start is tried four times, 30 s each; one that agrees to noise, for ever."""
    mock_clock.rate = 1
    async with plain_host() as host, mute(words) as address:
        peer = PeerInfo(ID.from_pubkey(create_new_key_pair().public_key), [Multiaddr(address)])
        began = trio.current_time()
        with jumping_time(mock_clock), trio.move_on_after(LONG) as scope, contextlib.suppress(SwarmException):
            await host.connect(peer)
        assert scope.cancelled_caught == bool(words)
        assert trio.current_time() > began + 100


STUCK_SECONDS = 0.5


class Writers:
    """Handlers of a plain host that write a window each, and the bytes that the peer gets."""

    def __init__(self, host: IHost, mux: YamuxConnection) -> None:
        self._mux = mux
        self._changed = trio.Event()
        self._missing = 0
        self.waiting: dict[trio.CancelScope, None] = {}
        """Handlers that have not finished."""
        host.set_stream_handler(ECHO, self._write)

    async def _write(self, stream: INetStream) -> None:
        with trio.CancelScope() as scope:
            self.waiting[scope] = None
            await stream.write(bytes(WINDOW))
        del self.waiting[scope]

    async def ask(self) -> None:
        """Have a handler write one more window."""
        stream = await self._mux.open_stream()
        stream.attach(self._received, lambda _: self._changed.set())
        stream.offer(OPENING)
        self._missing += len(OPENING) + WINDOW
        assert self._mux.writer.flush()

    async def until_one_has_to_wait(self) -> None:
        """A handler waits for good: on a busy machine one may wait for a moment until the kernel takes more."""
        stuck, since = None, trio.current_time()
        with trio.fail_after(20):
            while stuck is None or trio.current_time() < since + STUCK_SECONDS:
                if not self.waiting:
                    await self.ask()
                await trio.testing.wait_all_tasks_blocked(0.05)
                first = next(iter(self.waiting), None)
                if first is not stuck:
                    stuck, since = first, trio.current_time()

    async def until_all_came_or_it_ended(self) -> None:
        with trio.fail_after(30):
            while self._missing and not self._mux.is_closed:
                await self._changed.wait()
                self._changed = trio.Event()

    def _received(self, data: bytes) -> None:
        self._missing -= len(data)
        self._changed.set()


async def test_s6_a_peer_that_stays_and_answers_nothing_is_never_noticed(mock_clock: trio.testing.MockClock) -> None:
    mock_clock.rate = 1
    async with plain_host() as host, frozen(host):
        await until(host.get_connected_peers)
        with jumping_time(mock_clock):
            await trio.sleep(LONG)
        (peer,) = host.get_connected_peers()
        (connection,) = host.get_network().connections[peer]
        muxer = connection.muxed_conn
        assert isinstance(muxer, Yamux)
        assert muxer.is_established
        # private: the library says nowhere else how often it pinged
        assert muxer._ping_id > 10, "it pinged, and ignored that no pong came"


async def test_s6_disconnecting_a_peer_that_does_not_read_hangs(mock_clock: trio.testing.MockClock) -> None:
    mock_clock.rate = 1
    async with plain_host() as host, frozen(host) as mux:
        await Writers(host, mux).until_one_has_to_wait()
        (peer,) = host.get_connected_peers()
        with jumping_time(mock_clock), trio.move_on_after(LONG) as scope:
            await host.disconnect(peer)
        assert scope.cancelled_caught


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_s7_a_write_that_is_cancelled_under_backpressure_breaks_the_connection(is_cancelled: bool) -> None:
    """Half a packet was written, or one was encrypted and not written: the peer cannot decrypt what follows."""
    async with plain_host() as host, frozen(host) as mux:
        writers = Writers(host, mux)
        await writers.until_one_has_to_wait()
        if is_cancelled:
            for scope in writers.waiting:
                scope.cancel()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mux.start)
            await writers.ask()
            await writers.until_all_came_or_it_ended()
            assert mux.reason == ("a packet cannot be decrypted with the session's key" if is_cancelled else "")
            nursery.cancel_scope.cancel()


async def test_s9_one_dead_address_fails_the_dial_and_blocks_the_peer() -> None:
    async with plain_host() as host, plain_host() as other:
        living = address_of(other)
        for addresses in ([Multiaddr("/ip4/127.0.0.1/tcp/1"), living], [living]):
            with pytest.raises(SwarmException), trio.fail_after(30):
                await host.connect(PeerInfo(other.get_id(), addresses))


async def test_a_second_host_takes_the_same_port_without_an_error() -> None:
    async with plain_host() as host:
        other = libp2p.new_host(key_pair=create_new_key_pair(), listen_addrs=[address_of(host)])
        async with other.run([address_of(host)]):
            assert address_of(other) == address_of(host)


async def test_it_announces_0_0_0_0_literally() -> None:
    unspecified = Multiaddr("/ip4/0.0.0.0/tcp/0")
    host = libp2p.new_host(key_pair=create_new_key_pair(), listen_addrs=[unspecified])
    async with host.run([unspecified]):
        assert any("/0.0.0.0/" in str(address) for address in host.get_addrs())


def test_a_thousand_peers_with_addresses_cost_it_its_own_key() -> None:
    keys = create_new_key_pair()
    own, store = ID.from_pubkey(keys.public_key), PeerStore(max_peers=3)
    store.add_key_pair(own, keys)
    for _ in range(4):
        peer = ID.from_pubkey(create_new_key_pair().public_key)
        store.add_addr(peer, Multiaddr("/ip4/127.0.0.1/tcp/9"), 1000)
    assert own not in store.peer_data_map
