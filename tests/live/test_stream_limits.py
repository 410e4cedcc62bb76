"""How many streams and frames of a host one peer may use, and for how long: limits hold, and cost no other peer."""

import contextlib
from functools import partial

import pytest
import trio
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol

from node.swarm.base import Lane
from node.swarm.libp2p import yamux_stream as stream_module
from node.swarm.libp2p.host import PROTOCOL, Host
from node.swarm.libp2p.multistream import propose
from node.swarm.libp2p.peer_connection import PeerConnection
from node.swarm.libp2p.upgrade import Upgrader
from node.swarm.limits import SwarmLimits
from tests.live.echo import ECHO, REFUSED, count, is_served, serve_echo, stream_of
from tests.live.intruders import assert_ends, assert_serves, connected_tcp, intruder
from tests.live.swarm_peers import joined, running, seeds_in_order
from tests.until import until


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
            await until(partial(is_served, greedy))


@pytest.mark.parametrize("is_first", [True, False])
async def test_a_stream_that_is_silent_for_too_long_is_reset(is_first: bool) -> None:
    limits = SwarmLimits(first_byte_seconds=1, between_bytes_seconds=1)
    async with running(limits=limits) as (host, _), intruder(host) as mux:
        serve_echo(host)
        stream = await stream_of(mux)
        if not is_first:
            for _ in range(5):
                await stream.write(b"there?")
                assert await stream.read(100) == b"there?"
                await trio.sleep(0.3)
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
    async with running(seed=larger, limits=SwarmLimits(lanes_seconds=2)) as (host, recorder):
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
        await until(lambda: stream.is_done)
        assert count(host, "streams_slow") == 1
        assert not mux.is_closed
        await assert_serves(host, recorder)


async def test_own_streams_are_given_up_when_the_other_side_is_silent() -> None:
    """In the library 256 streams that were not closed make the next one wait for ever."""
    async with running(limits=SwarmLimits(negotiate_seconds=0.1)) as (host, _), intruder(host) as mux:
        assert host.library is not None
        await until(host.swarm.all)
        (connection,) = host.swarm.all()
        peer = connection.mux.peer_id
        with trio.fail_after(30):
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
        with trio.fail_after(30):
            while not mux.is_closed:
                with contextlib.suppress(*REFUSED):
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
            await each.dial(host.addresses, timeout=20)
            await recorder.until_connected(each.peer_id)
        (connection,) = other.swarm.of(host.peer_id)
        connection.lane_streams[Lane.BULK].offer((1000).to_bytes(4, "big"), b"and no more")
        with trio.fail_after(30):
            await recorder.until_disconnected(other.peer_id)
        assert "began a frame" in recorder.reasons[0]
        assert count(host, "frames_stalled") == 1
        assert host.connected_peers() == (friend.peer_id,)


async def test_a_frame_that_comes_byte_by_byte_costs_the_connection_too() -> None:
    async with running(limits=SwarmLimits(frame_seconds=2)) as (host, recorder), running() as (other, _):
        await other.dial(host.addresses, timeout=20)
        await recorder.until_connected(other.peer_id)
        (connection,) = other.swarm.of(host.peer_id)
        connection.lane_streams[Lane.BULK].offer((1_000_000).to_bytes(4, "big"))
        with trio.fail_after(30):
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
            await each.dial(host.addresses, timeout=20)
            await recorder.until_connected(each.peer_id)
            (connection,) = each.swarm.of(host.peer_id)
            connection.lane_streams[Lane.BULK].offer((2_000_000).to_bytes(4, "big"), bytes(600_000))
            if each is other:
                (theirs,) = host.swarm.of(other.peer_id)
                await until(partial(is_unfinished, theirs), what="its frame is older than the next one")
        with trio.fail_after(30):
            await recorder.until_disconnected(other.peer_id)
        assert "too much is under way in all" in recorder.reasons[0]
        (connection,) = friend.swarm.of(host.peer_id)
        connection.lane_streams[Lane.BULK].offer(bytes(1_400_000))
        await until(lambda: recorder.frames)
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
