"""What ends or blocks a plain libp2p host ends and blocks no host of this project, and plain hosts can talk to it."""

import contextlib
import importlib
import logging
import os

import libp2p
import pytest
import trio
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.host.ping import PingService
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.network.stream.exceptions import StreamEOF
from libp2p.peer.peerinfo import info_from_p2p_addr
from multiaddr import Multiaddr

from node.swarm.base import DialFailed, Lane
from node.swarm.libp2p import release
from node.swarm.libp2p.host import PROTOCOL, Host
from node.swarm.libp2p.upgrade import Upgrader
from node.swarm.limits import USUAL, SwarmLimits
from tests.live.echo import ECHO
from tests.live.intruders import assert_ends, assert_serves, connected_tcp, frame, intruder, plain_host
from tests.live.swarm_peers import joined, running, seeds_in_order
from tests.until import until

# -- floods and garbage ---------------------------------------------------------------------------------------------


async def test_connections_that_ended_leave_room_for_others() -> None:
    """A plain host refuses all connections after its first 250."""
    async with running() as (host, recorder):
        for _ in range(300):
            async with intruder(host):
                pass
        await assert_serves(host, recorder)
        await until(lambda: not host.swarm.all())


async def test_half_open_connections_make_room_for_a_new_one() -> None:
    async with running(limits=SwarmLimits(half_open_max=8)) as (host, recorder):
        connections = [await connected_tcp(host) for _ in range(30)]
        await assert_serves(host, recorder)
        assert len(host.inbound.half_open) <= 8
        for each in connections:
            each.abort()


async def test_a_silent_connection_is_closed() -> None:
    async with running(limits=SwarmLimits(upgrade_seconds=0.2)) as (host, _):
        silent = await connected_tcp(host)
        assert await silent.read(100) == b"\x13/multistream/1.0.0\n"
        with trio.fail_after(30), pytest.raises(ConnectionClosedError):
            await silent.read(1)
        silent.abort()


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        bytes(range(256)) * 100,
        b"\x13/multistream/1.0.0\n\x03\xff\xfe\n",
        b"\x13/multistream/1.0.0\n\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x13/multistream/1.0.0\n\x07/noise\n" + bytes(70_000),
    ],
)
async def test_garbage_on_the_port_harms_no_peer(garbage: bytes) -> None:
    async with running() as (host, recorder):
        sender = await connected_tcp(host)
        with contextlib.suppress(ConnectionClosedError):
            await sender.write(garbage)
        await assert_serves(host, recorder)
        sender.abort()


@pytest.mark.parametrize("protocol", ["/plaintext/2.0.0", "/secio/1.0.0", "/tls/1.0.0", "/yamux/1.0.0"])
async def test_nothing_but_noise_secures_a_connection(protocol: str) -> None:
    """A plain host accepts plaintext and secio."""
    async with running() as (host, _):
        asker = await connected_tcp(host)
        line = protocol.encode() + b"\n"
        await asker.write(b"\x13/multistream/1.0.0\n" + bytes([len(line)]) + line)
        answer = b""
        while not answer.endswith(b"\x03na\n"):
            answer += await asker.read(100)
        asker.abort()


# -- streams --------------------------------------------------------------------------------------------------------


async def test_a_stream_handler_that_raises_costs_its_stream() -> None:
    """It ends a plain host."""

    async def fail(stream: INetStream) -> None:
        raise RuntimeError("a handler with a bug")

    async with running() as (host, recorder):
        assert host.library is not None
        host.library.set_stream_handler(ECHO, fail)
        async with intruder(host) as mux:
            stream = await mux.open_stream()
            await stream.write(b"\x13/multistream/1.0.0\n\x11" + ECHO.encode() + b"\n")
            await assert_ends(stream)
            assert not mux.is_closed
        await assert_serves(host, recorder)


@pytest.mark.parametrize(
    "opening",
    [
        b"\x13/multistream/1.0.0\n\x03\xff\xfe\n",
        b"\x04\xc3\x28\xa0\n",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x00",
        b"",
    ],
)
async def test_a_bad_opening_of_a_stream_costs_that_stream(opening: bytes) -> None:
    """24 bytes that are not UTF-8 end a plain host."""
    async with running() as (host, recorder):
        async with intruder(host) as mux:
            stream = await mux.open_stream()
            if opening:
                await stream.write(opening)
            else:
                await stream.close()
            await assert_ends(stream)
            assert not mux.is_closed
        await assert_serves(host, recorder)


async def test_lanes_that_break_their_rules_are_reset() -> None:
    openings = [b"\x00\x00\x00\x01\x07", b"\x00\x00\x00\x02\x00\x00", b"\xff\xff\xff\xff\x00"]
    async with running() as (host, recorder):
        async with intruder(host) as mux:
            for first in openings:
                stream = await mux.open_stream()
                line = PROTOCOL.encode() + b"\n"
                await stream.write(b"\x13/multistream/1.0.0\n" + bytes([len(line)]) + line + first)
                await assert_ends(stream)
        await assert_serves(host, recorder)
        assert str(mux.peer_id) not in [peer for _, peer in recorder.events]


async def test_a_write_that_is_cancelled_under_backpressure_leaves_the_connection_whole() -> None:
    """In the library it can leave half a frame behind; then no stream of the connection works any more."""

    async def do_not_read(stream: INetStream) -> None:
        await trio.sleep_forever()

    async with joined() as (one, one_recorder, two, two_recorder):
        assert two.library is not None
        two.library.set_stream_handler(ECHO, do_not_read)
        (connection,) = one.swarm.of(two.peer_id)
        stream = await connection.mux.open_stream()
        await stream.write(b"\x13/multistream/1.0.0\n\x11" + ECHO.encode() + b"\n")
        with trio.move_on_after(0.3) as scope:
            while True:
                await stream.write(os.urandom(100_001))
        assert scope.cancelled_caught
        assert stream.queued > 0
        assert one.send(two.peer_id, Lane.SMALL, b"to two")
        assert two.send(one.peer_id, Lane.BULK, b"to one")
        await until(lambda: two_recorder.frames)
        await until(lambda: one_recorder.frames)


# -- yamux ----------------------------------------------------------------------------------------------------------


BREAKERS: dict[str, tuple[bytes, str]] = {
    "another version": (frame(0, 0, 1, 0, version=9), "version 9"),
    "an unknown type": (frame(7, 0, 1, 0), "type 7"),
    "a stream that is not its to open": (frame(1, 1, 2, 0), "not its to open"),
    "a stream twice": (frame(1, 1, 1, 0) * 2, "not its to open"),
    "stream zero": (frame(1, 1, 0, 0), "not its to open"),
    "more than the window": (frame(0, 1, 1, 256 * 1024 + 1), "more than it was granted"),
    "more than the window on no stream": (frame(0, 0, 99, 256 * 1024 + 1), "not open"),
    "data after the end": (frame(1, 1 | 4, 1, 0) + frame(0, 0, 1, 1) + b"x", "more than it was granted"),
    "too large a window": (frame(1, 1, 1, 0xFFFFFFFF) + frame(1, 0, 1, 0xFFFFFFFF), "grants more"),
}


@pytest.mark.parametrize("what", BREAKERS)
async def test_a_peer_that_breaks_yamux_loses_its_connection_and_no_other_peer_does(what: str) -> None:
    frames, complaint = BREAKERS[what]
    async with joined() as (host, recorder, other, _):
        async with intruder(host) as mux:
            peer = next(iter(await until_another_peer(host, other.peer_id)))
            (connection,) = host.swarm.of(peer)
            mux.writer.answers += frames
            mux.writer.wake()
            with trio.fail_after(30):
                await connection.ended.wait()
            assert complaint in connection.mux.reason
        assert host.connected_peers() == (other.peer_id,)
        await assert_serves(host, recorder)


async def until_another_peer(host: Host, besides: str) -> set[str]:
    """The connected peers without one of them, once there are any."""

    def connected() -> set[str]:
        return {connection.peer for connection in host.swarm.all()}

    await until(lambda: connected() - {besides}, what="another peer is connected")
    return connected() - {besides}


async def test_a_flood_of_pings_that_reads_no_pong_ends_its_connection() -> None:
    async with running() as (host, recorder):
        mux = await Upgrader(os.urandom(32)).outbound(await connected_tcp(host))
        await until(host.swarm.all)
        (connection,) = host.swarm.all()
        pings = mux.noise.encrypt(frame(2, 1, 0, 1) * 5_000)
        with trio.fail_after(30), contextlib.suppress(ConnectionClosedError):
            while not connection.is_closed:
                await mux.tcp.write(pings)
                pings = mux.noise.encrypt(frame(2, 1, 0, 1) * 5_000)
        await connection.ended.wait()
        mux.tcp.abort()
        await assert_serves(host, recorder)


async def test_streams_beyond_the_limit_are_reset_and_the_rest_is_served() -> None:
    async with running() as (host, recorder), intruder(host) as mux:
        streams = [await mux.open_stream() for _ in range(USUAL.streams_max + 10)]
        for stream in streams[-10:]:
            await assert_ends(stream)
        assert not mux.is_closed
        await assert_serves(host, recorder)


async def test_the_connections_of_one_peer_are_bounded() -> None:
    async with running() as (host, recorder), trio.open_nursery() as nursery:
        upgrader = Upgrader(os.urandom(32))
        muxes = [await upgrader.outbound(await connected_tcp(host)) for _ in range(20)]
        for mux in muxes:
            nursery.start_soon(mux.start)
        await until(lambda: sum(mux.is_closed for mux in muxes) >= 20 - USUAL.connections_per_peer_max)
        await assert_serves(host, recorder)
        nursery.cancel_scope.cancel()


# -- libp2p's own hosts ---------------------------------------------------------------------------------------------


async def test_a_plain_libp2p_host_can_identify_ping_and_stream() -> None:
    async with running() as (host, _), plain_host() as other:
        assert host.library is not None
        host.library.set_stream_handler(ECHO, echo)
        target = info_from_p2p_addr(Multiaddr(host.addresses[0]))
        await other.connect(target)
        await until(lambda: TProtocol(PROTOCOL) in other.get_peerstore().get_protocols(target.peer_id))
        assert Multiaddr(host.addresses[0]) in other.get_peerstore().addrs(target.peer_id)
        assert len(await PingService(other).ping(target.peer_id, 2)) == 2
        sent = os.urandom(2_000_000)
        stream = await other.new_stream(target.peer_id, [ECHO])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.write, sent)
            got = b""
            while len(got) < len(sent):
                got += await stream.read(65536)
        assert got == sent
        await stream.close()


async def echo(stream: INetStream) -> None:
    with contextlib.suppress(StreamEOF):
        while True:
            await stream.write(await stream.read(65536))
    await stream.close()


async def test_a_host_can_stream_to_a_plain_libp2p_host() -> None:
    async with running() as (host, _), plain_host() as other:
        assert host.library is not None
        other.set_stream_handler(ECHO, echo)
        await other.connect(info_from_p2p_addr(Multiaddr(host.addresses[0])))
        await until(host.swarm.all)
        stream = await host.library.new_stream(other.get_id(), [ECHO])
        for size in (1, 1_000, 200_000):
            sent, got = os.urandom(size), b""
            await stream.write(sent)
            while len(got) < size:
                got += await stream.read(65536)
            assert got == sent
        await stream.close()


@pytest.mark.parametrize("is_smaller_here", [True, False])
async def test_dialling_a_host_that_has_no_lanes_fails_in_time(is_smaller_here: bool) -> None:
    smaller, larger = seeds_in_order()
    mine, theirs = (smaller, larger) if is_smaller_here else (larger, smaller)
    async with running(seed=mine) as (host, recorder), plain_host(theirs) as other:
        with trio.fail_after(30), pytest.raises(DialFailed, match=r"lanes were not up|does not open /bzzz/store"):
            await host.dial([str(other.get_addrs()[0])], timeout=2)
        assert recorder.events == []


# -- the library itself ---------------------------------------------------------------------------------------------


def test_another_release_of_libp2p_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libp2p, "__version__", "0.9.0")
    with pytest.raises(ImportError, match=r"libp2p 0\.9\.0 is installed"):
        importlib.reload(release)


def test_libp2p_logs_no_normal_events_and_installs_no_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    release.configure_logging()
    assert not logging.getLogger("libp2p.network.swarm").isEnabledFor(logging.ERROR)
    logging.debug("this would install a handler that writes to stderr")
    assert [type(handler) for handler in root.handlers] == [logging.NullHandler]
