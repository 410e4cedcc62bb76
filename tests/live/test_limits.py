"""How much of a host one peer, or a thousand peers, may use: each limit holds, is counted, and costs no other peer."""

import contextlib
import logging
import os
import resource
import socket
from contextlib import closing
from functools import partial

import pytest
import trio
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.protocol_muxer.exceptions import MultiselectClientError
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable, MuxedStreamError

from node.swarm.base import DialFailed, Lane
from node.swarm.libp2p import host as host_module
from node.swarm.libp2p import listen, tcp, yamux_writer
from node.swarm.libp2p import yamux_stream as stream_module
from node.swarm.libp2p.host import PROTOCOL, Host
from node.swarm.libp2p.multistream import propose
from node.swarm.libp2p.peer_connection import PeerConnection
from node.swarm.libp2p.tcp import TcpConnection
from node.swarm.libp2p.upgrade import Upgrader
from node.swarm.libp2p.yamux import YamuxConnection
from node.swarm.libp2p.yamux_stream import YamuxStream
from node.swarm.limit_counters import LimitCounters
from node.swarm.limits import SwarmLimits
from node.swarm.peer_policy import PeerPolicy
from protocols.policy.reputation import Reputation
from tests.live.intruders import assert_ends, assert_serves, connected_tcp, frame, intruder
from tests.live.swarm_peers import LOOPBACK, joined, running, seeds_in_order
from tests.until import until

ECHO = TProtocol("/test/echo/1.0.0")


def count(host: Host, kind: str) -> int:
    return host.peer_policy.limit_counters.counts.as_dict()[kind]


def serve_echo(host: Host) -> None:
    async def echo(stream: INetStream) -> None:
        while True:
            await stream.write(await stream.read(1000))

    assert host.library is not None
    host.library.set_stream_handler(ECHO, echo)


async def stream_of(mux: YamuxConnection) -> YamuxStream:
    stream = await mux.open_stream()
    await propose(stream, ECHO)
    return stream


_REFUSED = (MuxedStreamError, MuxedConnUnavailable, MultiselectClientError)


async def is_served(mux: YamuxConnection) -> bool:
    try:
        stream = await stream_of(mux)
        await stream.write(b"there?")
        return await stream.read(100) == b"there?"
    except _REFUSED:
        return False


# -- connections ------------------------------------------------------------------------------------------------------


async def test_a_thousand_idle_connections_and_three_hundred_half_open_ones_delay_no_other_peer() -> None:
    async with running() as (host, recorder), trio.open_nursery() as nursery:

        async def connect() -> None:
            mux = await Upgrader(os.urandom(32)).outbound(await connected_tcp(host))
            nursery.start_soon(mux.start)

        for _ in range(20):
            async with trio.open_nursery() as connecting:
                for _ in range(50):
                    connecting.start_soon(connect)
        half_open = [await connected_tcp(host) for _ in range(300)]
        await until(lambda: len(host.half_open) >= 300)
        assert host.swarm.count == 1000
        await assert_serves(host, recorder)
        assert host.swarm.count >= 1000
        for tcp in half_open:
            tcp.abort()
        nursery.cancel_scope.cancel()


async def test_a_hang_up_in_the_handshake_is_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with running() as (host, _):
        tcp = await connected_tcp(host)
        assert await tcp.read(100)
        tcp.abort()
        await until(lambda: count(host, "handshakes_failed"), seconds=3)
    (record,) = caplog.records
    assert record.getMessage() == "127.0.0.1: did not become a connection: closed by the other side"


async def test_an_idle_connection_is_closed_when_there_are_too_many() -> None:
    async with running(limits=SwarmLimits(connections_max=10)) as (host, recorder), running() as (friend, _):
        await friend.dial(host.addresses, timeout=5)
        await recorder.until_connected(friend.peer_id)
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(20):
                await stack.enter_async_context(intruder(host))
            await assert_serves(host, recorder)
            await until(lambda: host.swarm.count + len(host.half_open) <= 10)
            assert count(host, "connections_evicted") >= 11
            assert host.connected_peers()[0] == friend.peer_id, "its connection is in use"


async def test_when_all_connections_are_in_use_the_next_is_refused() -> None:
    async with contextlib.AsyncExitStack() as stack:
        host, recorder = await stack.enter_async_context(running(limits=SwarmLimits(connections_max=3)))
        others = [await stack.enter_async_context(running()) for _ in range(4)]
        for other, _ in others[:3]:
            await other.dial(host.addresses, timeout=5)
            await recorder.until_connected(other.peer_id)
        late = others[3][0]
        with pytest.raises(DialFailed):
            await late.dial(host.addresses, timeout=5)
        assert count(host, "connections_refused") == 1
        host.disconnect(others[0][0].peer_id, "to make room")
        await recorder.until_disconnected(others[0][0].peer_id)
        assert await late.dial(host.addresses, timeout=5) == host.peer_id


async def test_the_connections_of_a_public_subnet_are_bounded_and_counted_down_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(host_module, "subnet", lambda host: "198.51.100.0/24")
    async with running(limits=SwarmLimits(connections_per_subnet_max=3)) as (host, recorder):
        async with intruder(host), intruder(host):
            half_open = await connected_tcp(host)
            assert await half_open.read(100)
            further = await connected_tcp(host)
            with pytest.raises(ConnectionClosedError):
                await further.read(100)
            assert count(host, "connections_per_subnet") == 1
            for tcp in (half_open, further):
                tcp.abort()
        await until(lambda: not host.inbound_by_subnet)
        await assert_serves(host, recorder)


async def test_a_peer_may_reconnect_without_limit() -> None:
    """libp2p's resource manager denies a peer that connects more than ten times a second."""
    async with running() as (host, recorder), running() as (other, other_recorder):
        for _ in range(60):
            await other.dial(host.addresses, timeout=5)
            other.disconnect(host.peer_id, "to come again")
        await other_recorder.until_disconnected(host.peer_id)
        assert await other.dial(host.addresses, timeout=5) == host.peer_id
        await recorder.until_connected(other.peer_id)


async def test_an_unused_connection_is_closed_and_a_link_is_not() -> None:
    limits = SwarmLimits(idle_seconds=1, negotiate_seconds=0.2, lanes_seconds=0.2)
    async with running(limits=limits) as (host, _), running() as (friend, _):
        await friend.dial(host.addresses, timeout=5)
        async with intruder(host) as mux:
            with trio.fail_after(5):
                await mux.event_closed.wait()
        assert count(host, "connections_idle") == 1
        assert host.connected_peers() == (friend.peer_id,)


# -- streams ----------------------------------------------------------------------------------------------------------


async def test_the_streams_of_a_peer_for_a_protocol_are_bounded_and_other_peers_have_theirs() -> None:
    """Twelve idle streams disable the DHT of a plain host for all peers."""
    async with running(limits=SwarmLimits(streams_per_protocol_max=4)) as (host, _):
        serve_echo(host)
        async with intruder(host) as greedy, intruder(host) as other:
            kept = [await stream_of(greedy) for _ in range(4)]
            assert not await is_served(greedy)
            assert count(host, "streams_per_protocol") == 1
            assert await is_served(other)
            await kept[0].write(b"there?")
            assert await kept[0].read(100) == b"there?"
            await kept[0].reset()
            await until(partial(is_served, greedy), seconds=3)


@pytest.mark.parametrize("is_first", [True, False])
async def test_a_stream_that_is_silent_for_too_long_is_reset(is_first: bool) -> None:
    limits = SwarmLimits(first_byte_seconds=0.2, between_bytes_seconds=0.3)
    async with running(limits=limits) as (host, _), intruder(host) as mux:
        serve_echo(host)
        stream = await stream_of(mux)
        if not is_first:
            for _ in range(5):
                await stream.write(b"there?")
                assert await stream.read(100) == b"there?"
                await trio.sleep(0.1)
        await assert_ends(stream)
        assert count(host, "streams_slow") == 1
        assert not mux.is_closed


async def test_a_stream_that_names_no_protocol_is_reset() -> None:
    async with running(limits=SwarmLimits(negotiate_seconds=0.2)) as (host, _), intruder(host) as mux:
        stream = await mux.open_stream()
        await stream.write(b"\x13/multistream/1.0.0\n")
        await assert_ends(stream)
        assert count(host, "streams_slow") == 1


async def test_a_lane_that_is_not_named_in_time_is_reset() -> None:
    smaller, larger = seeds_in_order()
    async with running(seed=larger, limits=SwarmLimits(lanes_seconds=0.2)) as (host, recorder):
        mux = await Upgrader(smaller).outbound(await connected_tcp(host))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mux.start)
            stream = await mux.open_stream()
            await propose(stream, TProtocol(PROTOCOL))
            await assert_ends(stream)
            assert count(host, "streams_slow") == 1
            assert not mux.is_closed
            nursery.cancel_scope.cancel()
        await assert_serves(host, recorder)


async def test_a_stream_that_is_not_read_is_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "STALL_SECONDS", 0.2)
    async with running() as (host, recorder), intruder(host) as mux:
        serve_echo(host)
        stream = await stream_of(mux)
        stream.offer(bytes(1_000_000))
        await until(lambda: stream.is_done, seconds=5)
        assert count(host, "streams_slow") == 1
        assert not mux.is_closed
        await assert_serves(host, recorder)


async def test_a_connection_that_takes_no_byte_is_closed_counted_and_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(yamux_writer, "STALL_SECONDS", 0.2)
    async with running() as (host, recorder), intruder(host) as mux:
        await until(host.swarm.all)
        (theirs,) = host.swarm.all()
        monkeypatch.setattr(theirs.mux.tcp, "transmit", lambda data: 0)
        monkeypatch.setattr(theirs.mux.tcp, "writable", trio.sleep_forever)
        with trio.fail_after(5):
            await mux.ping(5)
            await theirs.mux.event_closed.wait()
        assert theirs.mux.reason == "took no byte for 0.2 s"
        assert count(host, "connections_stalled") == 1
        assert f"{theirs.mux.peer_id}: took no byte for 0.2 s, and loses its connection" in caplog.text
        await assert_serves(host, recorder)


async def test_without_descriptors_a_new_connection_waits_and_that_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit_counters = LimitCounters()
    (listening,) = listen.bind(LOOPBACK)
    with closing(listening), closing(socket.create_connection(listening.getsockname())):
        spare = os.dup(0)  # the lowest that is free
        os.close(spare)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (spare, hard))
            with trio.move_on_after(0.35):
                await tcp.accept(listening, limit_counters)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert limit_counters.counts.out_of_descriptors > 1
        (record,) = caplog.records
        assert "no file descriptors left; raise its limit (ulimit -n)" in record.getMessage()
        (await tcp.accept(listening, limit_counters)).abort()


async def test_own_streams_are_given_up_when_the_other_side_is_silent() -> None:
    """In the library 256 streams that were not closed make the next one wait for ever."""
    async with running(limits=SwarmLimits(negotiate_seconds=0.1)) as (host, _), intruder(host) as mux:
        assert host.library is not None
        await until(host.swarm.all)
        (connection,) = host.swarm.all()
        peer = connection.mux.peer_id
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                for _ in range(300):
                    nursery.start_soon(refused, host, peer)
        assert not mux.is_closed
        assert not [s for s in connection.streams if s.get_protocol() is None]


async def refused(host: Host, peer: object) -> None:
    from libp2p.host.exceptions import StreamFailure

    assert host.library is not None
    with pytest.raises(StreamFailure):
        await host.library.new_stream(peer, [ECHO])  # type: ignore[arg-type]


async def test_too_many_unread_bytes_end_the_connection_that_sends_them() -> None:
    async def do_not_read(stream: INetStream) -> None:
        await trio.sleep_forever()

    limits = SwarmLimits(unread_bytes_max=500_000, streams_per_protocol_max=100)
    async with running(limits=limits) as (host, recorder), intruder(host) as mux:
        assert host.library is not None
        host.library.set_stream_handler(ECHO, do_not_read)
        with trio.fail_after(5):
            while not mux.is_closed:
                with contextlib.suppress(*_REFUSED):
                    await (await stream_of(mux)).write(bytes(200_000))
        assert count(host, "unread_bytes") == 1
        await assert_serves(host, recorder)


async def test_bytes_of_a_reset_stream_are_no_longer_unread() -> None:
    async with running() as (host, _), intruder(host) as mux:
        serve_echo(host)
        await stream_of(mux)
        (connection,) = host.swarm.all()
        for _ in range(5):
            stream = await stream_of(mux)
            stream.credit = 1 << 30
            await stream.write(bytes(200_000))
            await stream.reset()
        last = await stream_of(mux)
        await last.write(b"there?")
        assert await last.read(100) == b"there?"
        await until(lambda: not connection.mux.unread)


# -- frames -----------------------------------------------------------------------------------------------------------


async def test_a_frame_that_is_begun_and_not_ended_costs_the_connection() -> None:
    limits = SwarmLimits(frame_stall_seconds=1)
    async with running(limits=limits) as (host, recorder), running() as (other, _), running() as (friend, _):
        for each in (other, friend):
            await each.dial(host.addresses, timeout=5)
            await recorder.until_connected(each.peer_id)
        (connection,) = other.swarm.of(host.peer_id)
        connection.lane_streams[Lane.BULK].offer((1000).to_bytes(4, "big"), b"and no more")
        with trio.fail_after(5):
            await recorder.until_disconnected(other.peer_id)
        assert "began a frame" in recorder.reasons[0]
        assert count(host, "frames_stalled") == 1
        assert host.connected_peers() == (friend.peer_id,)


async def test_a_frame_that_comes_byte_by_byte_costs_the_connection_too() -> None:
    async with running(limits=SwarmLimits(frame_seconds=2)) as (host, recorder), running() as (other, _):
        await other.dial(host.addresses, timeout=5)
        await recorder.until_connected(other.peer_id)
        (connection,) = other.swarm.of(host.peer_id)
        connection.lane_streams[Lane.BULK].offer((1_000_000).to_bytes(4, "big"))
        with trio.fail_after(10):
            while recorder.last_event_of(other.peer_id) == "connected":
                connection.lane_streams[Lane.BULK].offer(b"x")
                await trio.sleep(0.1)
        assert "has not ended it" in recorder.reasons[0]


def is_unfinished(connection: PeerConnection) -> bool:
    """Whether a frame of the connection has been incomplete for a second."""
    return connection.lanes is not None and connection.lanes.unfinished_seconds >= 1


async def test_the_memory_of_unfinished_frames_is_bounded_and_the_oldest_is_given_up() -> None:
    limits = SwarmLimits(unfinished_bytes_in_all_max=1_000_000)
    async with running(limits=limits) as (host, recorder), running() as (other, _), running() as (friend, _):
        for each in (other, friend):
            await each.dial(host.addresses, timeout=5)
            await recorder.until_connected(each.peer_id)
            (connection,) = each.swarm.of(host.peer_id)
            connection.lane_streams[Lane.BULK].offer((2_000_000).to_bytes(4, "big"), bytes(600_000))
            if each is other:
                (theirs,) = host.swarm.of(other.peer_id)
                await until(partial(is_unfinished, theirs), what="its frame is older than the next one")
        with trio.fail_after(5):
            await recorder.until_disconnected(other.peer_id)
        assert "too much is under way in all" in recorder.reasons[0]
        (connection,) = friend.swarm.of(host.peer_id)
        connection.lane_streams[Lane.BULK].offer(bytes(1_400_000))
        await until(lambda: recorder.frames, seconds=5)
        assert [(peer, len(frame)) for peer, _, frame in recorder.frames] == [(friend.peer_id, 2_000_000)]


async def test_a_frame_over_the_limit_and_a_full_queue_are_counted() -> None:
    async with joined() as (one, _, two, two_recorder):
        assert one.send(two.peer_id, Lane.BULK, bytes(8_000_000))
        while one.send(two.peer_id, Lane.BULK, bytes(8_000_000)):
            pass
        assert count(one, "frames_not_queued") == 1
        (connection,) = one.swarm.of(two.peer_id)
        connection.lane_streams[Lane.SMALL].offer(b"\xff\xff\xff\xff")
        await two_recorder.until_disconnected(one.peer_id)
        assert count(two, "frames_too_long") == 1


# -- the log ---------------------------------------------------------------------------------------------------------


async def test_a_flood_of_one_kind_is_one_line_and_one_number(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with running(limits=SwarmLimits(half_open_max=4)) as (host, recorder):
        connections: list[TcpConnection] = [await connected_tcp(host) for _ in range(60)]
        await assert_serves(host, recorder)
        dropped = count(host, "half_open_dropped")
        assert dropped >= 50
        assert len([record for record in caplog.records if "are in their handshake" in record.getMessage()]) == 1
        for tcp in connections:
            tcp.abort()


# -- bans ------------------------------------------------------------------------------------------------------------


async def offend(host: Host, seed: bytes) -> None:
    """Break the rules of yamux, which ends the connection."""
    mux = await Upgrader(seed).outbound(await connected_tcp(host))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mux.start)
        mux.writer.answers += frame(7, 0, 1, 0)
        mux.writer.wake()
        await mux.event_closed.wait()
        nursery.cancel_scope.cancel()


async def test_a_peer_that_breaks_the_rules_again_and_again_is_banned_for_a_time() -> None:
    peer_policy = PeerPolicy(reputation=Reputation(half_life_seconds=2.0, ban_at=45.0, readmit_at=25.0))
    seed = os.urandom(32)
    async with running(peer_policy=peer_policy) as (host, recorder), running() as (friend, _):
        await friend.dial(host.addresses, timeout=5)
        async with running(seed=seed) as (rogue, _):
            peer = rogue.peer_id
            await rogue.dial(host.addresses, timeout=5)
            await recorder.until_connected(peer)
        await recorder.until_disconnected(peer)
        with trio.fail_after(5):
            while not peer_policy.complaint(peer):
                await offend(host, seed)
        assert count(host, "places_lost") == 1
        async with running(seed=seed) as (rogue, _):
            with pytest.raises(DialFailed):
                await rogue.dial(host.addresses, timeout=5)
            with pytest.raises(DialFailed, match="it misbehaved, and is banned for another"):
                await host.dial(rogue.addresses, timeout=5)
            await until(lambda: not peer_policy.complaint(peer))
            assert await rogue.dial(host.addresses, timeout=5) == host.peer_id
        assert host.connected_peers()[0] == friend.peer_id
        assert [peer for _, peer in recorder.events].count(friend.peer_id) == 1


async def test_one_stream_of_garbage_costs_no_connection_and_many_do() -> None:
    async with running() as (host, recorder), intruder(host) as mux:
        sent = 0
        while not mux.is_closed:
            with contextlib.suppress(*_REFUSED):
                stream = await mux.open_stream()
                await stream.write(b"\x13/multistream/1.0.0\n\x03\xff\xfe\n")
                await assert_ends(stream)
                sent += 1
        assert 8 <= sent <= 9
        assert count(host, "connections_forfeited") == 1
        await assert_serves(host, recorder)


# -- the lists --------------------------------------------------------------------------------------------------------


async def test_the_lists_hold_at_once_and_both_ways() -> None:
    peer_policy = PeerPolicy()
    async with (
        running(peer_policy=peer_policy) as (host, recorder),
        running() as (one, one_recorder),
        running() as (two, _),
    ):

        async def may(other: Host) -> bool:
            """Whether a peer is accepted, on connect and on dial."""
            outcomes = []
            for dialler, dialled in ((other, host), (host, other)):
                try:
                    await dialler.dial(dialled.addresses, timeout=5)
                    outcomes.append(True)
                except DialFailed:
                    outcomes.append(False)
                dialler.disconnect(dialled.peer_id, "the next one")
                await until(lambda: not host.swarm.of(other.peer_id) and not other.swarm.of(host.peer_id))
            assert len(set(outcomes)) == 1
            return outcomes[0]

        assert [await may(one), await may(two)] == [True, True]
        await one.dial(host.addresses, timeout=5)
        await recorder.until_connected(one.peer_id)
        peer_policy.set_lists(deny=[one.peer_id])
        assert host.connected_peers() == ()
        await one_recorder.until_disconnected(host.peer_id)
        assert [await may(one), await may(two)] == [False, True]
        peer_policy.set_lists(deny=[], allow=[one.peer_id])
        assert [await may(one), await may(two)] == [True, False]
        peer_policy.set_lists(deny=[one.peer_id])
        assert [await may(one), await may(two)] == [False, False]
        assert count(host, "turned_away") == 4, "once for each inbound connection"
        peer_policy.set_lists(allow=[], deny=[])
        assert [await may(one), await may(two)] == [True, True]
