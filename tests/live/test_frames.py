"""Frames over real hosts: whole, in order, small frames before bulk ones, and never more than a queue may hold."""

import errno
import os
from functools import partial

import pytest

from node.swarm.base import FRAME_BYTES_MAX, Lane
from node.swarm.limits import USUAL
from protocols.keys import PrivateKey
from tests.live.swarm_peers import echoing, joined, running
from tests.until import until


async def test_frames_of_every_size_arrive_whole_and_in_order() -> None:
    sizes = [0, 1, 3, 4, 65_518, 65_519, 65_520, 300_000, 0, FRAME_BYTES_MAX, 7]
    frames = [os.urandom(size) for size in sizes]
    async with joined() as (one, one_recorder, two, two_recorder):
        for sender, receiver, recorder in ((one, two, two_recorder), (two, one, one_recorder)):
            for lane in Lane:
                recorder.frames.clear()
                for frame in frames:
                    await until(partial(sender.send, receiver.peer_id, lane, frame))
                await recorder.until_frames(len(frames))
                assert recorder.frames == [(sender.peer_id, lane, frame) for frame in frames]


async def test_a_small_frame_does_not_wait_for_the_bulk_before_it() -> None:
    async with joined() as (one, _, two, two_recorder):
        assert one.send(two.peer_id, Lane.BULK, bytes(FRAME_BYTES_MAX))
        assert one.send(two.peer_id, Lane.SMALL, b"first")
        await until(lambda: len(two_recorder.frames) == 2)
        assert [lane for _, lane, _ in two_recorder.frames] == [Lane.SMALL, Lane.BULK]


async def test_nothing_is_sent_to_a_peer_that_is_not_connected() -> None:
    async with joined() as (one, one_recorder, two, _):
        assert not one.send(PrivateKey.from_seed(os.urandom(32)).peer_id, Lane.SMALL, b"?")
        one.disconnect(two.peer_id, "enough of it")
        assert not one.send(two.peer_id, Lane.SMALL, b"?")
        assert one.connected_peers() == ()
        await one_recorder.until_disconnected(two.peer_id)
        assert one_recorder.reasons == ["enough of it"]


async def test_a_full_queue_refuses_frames_and_loses_none_that_it_took() -> None:
    """A peer that stops reading fills its own queues. A caller never waits, and no frame is cut in two."""
    async with running() as (host, recorder), echoing() as peer:
        await host.dial([peer.address], timeout=20)
        peer.freeze()
        taken = {Lane.SMALL: 0, Lane.BULK: 0}
        for lane in Lane:
            while host.send(peer.peer, lane, taken[lane].to_bytes(4, "big") * 5_000):
                taken[lane] += 1
            most = {Lane.SMALL: USUAL.small_queue_bytes_max, Lane.BULK: USUAL.bulk_queue_bytes_max}[lane]
            assert taken[lane] * 20_000 >= most
        peer.thaw()
        await until(lambda: len(recorder.frames) == sum(taken.values()))
        for lane in Lane:
            numbers = [frame for _, by, frame in recorder.frames if by is lane]
            assert numbers == [number.to_bytes(4, "big") * 5_000 for number in range(taken[lane])]


async def test_a_frame_over_the_limit_ends_its_connection_before_it_is_read() -> None:
    async with joined() as (one, _, two, two_recorder), running() as (third, _):
        await third.dial(two.addresses, timeout=20)
        (connection,) = one.swarm.of(two.peer_id)
        connection.lane_streams[Lane.SMALL].offer((FRAME_BYTES_MAX + 1).to_bytes(4, "big"), bytes(100))
        await two_recorder.until_disconnected(one.peer_id)
        assert "announced a frame of 8,388,609 bytes" in two_recorder.reasons[0]
        assert two_recorder.frames == []
        assert third.send(two.peer_id, Lane.SMALL, b"still there")
        await until(lambda: two_recorder.frames)


async def test_a_receiver_that_raises_loses_that_frame_and_nothing_else() -> None:
    async with joined() as (one, _, two, two_recorder):

        def fail(peer: str, lane: Lane, frame: bytes) -> None:
            if frame == b"bad":
                raise RuntimeError("the receiver broke its promise")

        two_recorder.on_frame = fail
        for frame in (b"bad", b"good"):
            assert one.send(two.peer_id, Lane.SMALL, frame)
        await until(lambda: len(two_recorder.frames) == 2)
        assert two.connected_peers() == (one.peer_id,)


async def test_a_receiver_may_disconnect_from_within_a_frame() -> None:
    async with joined() as (one, one_recorder, two, two_recorder):
        two_recorder.on_frame = lambda peer, lane, frame: two.disconnect(peer, "said the wrong thing")
        for frame in (b"one", b"two", b"three"):
            assert one.send(two.peer_id, Lane.SMALL, frame)
        await one_recorder.until_disconnected(two.peer_id)
        await two_recorder.until_disconnected(one.peer_id)
        assert len(two_recorder.frames) == 1


async def test_a_long_frame_is_sent_before_another_task_has_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    async with joined() as (one, _, other, other_recorder):
        mux = one.swarm.of(other.peer_id)[0].mux
        transmit, sent = mux.tcp.transmit, 0

        def counted(data: bytes | memoryview) -> int:
            nonlocal sent
            sent += len(data)
            return transmit(data)

        monkeypatch.setattr(mux.tcp, "transmit", counted)
        assert one.send(other.peer_id, Lane.SMALL, b"short")
        assert sent == 0, "short frames are sent together"
        assert one.send(other.peer_id, Lane.SMALL, bytes(10_000))
        assert sent > 10_000
        await other_recorder.until_frames(2)
        assert [len(frame) for _, _, frame in other_recorder.frames] == [5, 10_000]


async def test_a_long_frame_on_a_broken_connection_raises_nothing_and_disconnects(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with joined() as (one, recorder, other, _):

        def breaks(data: bytes | memoryview) -> int:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

        monkeypatch.setattr(one.swarm.of(other.peer_id)[0].mux.tcp, "transmit", breaks)
        assert one.send(other.peer_id, Lane.SMALL, bytes(10_000))
        await recorder.until_disconnected(other.peer_id)
        assert "Broken pipe" in recorder.reasons[-1]
