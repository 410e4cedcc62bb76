"""Frames over real hosts: whole, in order, small ones before the bulk, and never more than a queue may hold."""

import errno
import os

import pytest
import trio

from node.swarm.base import FRAME_BYTES_MAX, Lane
from node.swarm.limits import USUAL
from protocols.keys import PrivateKey
from tests.live.swarm_peers import echoing, joined, running


async def test_frames_of_every_size_arrive_whole_and_in_order() -> None:
    sizes = [0, 1, 3, 4, 65_518, 65_519, 65_520, 300_000, 0, FRAME_BYTES_MAX, 7]
    frames = [os.urandom(size) for size in sizes]
    async with joined() as (one, one_told, two, two_told):
        for sender, receiver, told in ((one, two, two_told), (two, one, one_told)):
            for lane in Lane:
                told.frames.clear()
                for frame in frames:
                    while not sender.send(receiver.peer_id, lane, frame):
                        await trio.sleep(0.001)
                await told.until_frames(len(frames))
                assert told.frames == [(sender.peer_id, lane, frame) for frame in frames]


async def test_a_small_frame_does_not_wait_for_the_bulk_before_it() -> None:
    async with joined() as (one, _, two, two_told):
        assert one.send(two.peer_id, Lane.BULK, bytes(FRAME_BYTES_MAX))
        assert one.send(two.peer_id, Lane.SMALL, b"first")
        await two_told.until(lambda: len(two_told.frames) == 2)
        assert [lane for _, lane, _ in two_told.frames] == [Lane.SMALL, Lane.BULK]


async def test_nothing_is_sent_to_who_is_not_connected() -> None:
    async with joined() as (one, one_told, two, _):
        assert not one.send(PrivateKey.from_seed(os.urandom(32)).peer_id, Lane.SMALL, b"?")
        one.disconnect(two.peer_id, "enough of it")
        assert not one.send(two.peer_id, Lane.SMALL, b"?")
        assert one.connected_peers() == ()
        await one_told.until_gone(two.peer_id)
        assert one_told.reasons == ["enough of it"]


async def test_a_full_queue_refuses_and_loses_nothing_of_what_it_took() -> None:
    """A peer that stops reading fills its own queues; a caller is never held up, and never cuts a frame in two."""
    async with running() as (host, told), echoing() as peer:
        await host.dial([peer.address], timeout=5)
        peer.freeze()
        taken = {Lane.SMALL: 0, Lane.BULK: 0}
        for lane in Lane:
            while host.send(peer.peer, lane, taken[lane].to_bytes(4, "big") * 5_000):
                taken[lane] += 1
            assert (
                taken[lane] * 20_000
                >= {
                    Lane.SMALL: USUAL.small_queue_bytes_max,
                    Lane.BULK: USUAL.bulk_queue_bytes_max,
                }[lane]
            )
        peer.thaw()
        await told.until(lambda: len(told.frames) == sum(taken.values()))
        for lane in Lane:
            numbers = [frame for _, by, frame in told.frames if by is lane]
            assert numbers == [number.to_bytes(4, "big") * 5_000 for number in range(taken[lane])]


async def test_a_frame_over_the_limit_ends_its_connection_before_it_is_read() -> None:
    async with joined() as (one, _, two, two_told), running() as (third, _):
        await third.dial(two.addresses, timeout=5)
        (connection,) = one.swarm.of(two.peer_id)
        connection.lane_streams[Lane.SMALL].offer((FRAME_BYTES_MAX + 1).to_bytes(4, "big"), bytes(100))
        await two_told.until_gone(one.peer_id)
        assert "announced a frame of 8,388,609 bytes" in two_told.reasons[0]
        assert two_told.frames == []
        assert third.send(two.peer_id, Lane.SMALL, b"still there")
        await two_told.until(lambda: bool(two_told.frames))


async def test_a_receiver_that_raises_costs_its_frame_and_nothing_else() -> None:
    async with joined() as (one, _, two, two_told):

        def fail(peer: str, lane: Lane, frame: bytes) -> None:
            if frame == b"bad":
                raise RuntimeError("the receiver broke its promise")

        two_told.on_frame = fail
        for frame in (b"bad", b"good"):
            assert one.send(two.peer_id, Lane.SMALL, frame)
        await two_told.until(lambda: len(two_told.frames) == 2)
        assert two.connected_peers() == (one.peer_id,)


async def test_a_receiver_may_disconnect_from_within_a_frame() -> None:
    async with joined() as (one, one_told, two, two_told):
        two_told.on_frame = lambda peer, lane, frame: two.disconnect(peer, "said the wrong thing")
        for frame in (b"one", b"two", b"three"):
            assert one.send(two.peer_id, Lane.SMALL, frame)
        await one_told.until_gone(two.peer_id)
        await two_told.until_gone(one.peer_id)
        assert len(two_told.frames) == 1


async def test_a_long_frame_is_on_its_way_before_anybody_else_has_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    async with joined() as (one, _, other, other_told):
        mux = one.swarm.of(other.peer_id)[0].mux
        transmit, sent = mux.tcp.transmit, 0

        def counted(data: bytes | memoryview) -> int:
            nonlocal sent
            sent += len(data)
            return transmit(data)

        monkeypatch.setattr(mux.tcp, "transmit", counted)
        assert one.send(other.peer_id, Lane.SMALL, b"short")
        assert sent == 0, "short ones go together"
        assert one.send(other.peer_id, Lane.SMALL, bytes(10_000))
        assert sent > 10_000
        await other_told.until_frames(2)
        assert [len(frame) for _, _, frame in other_told.frames] == [5, 10_000]


async def test_who_sends_a_long_frame_on_a_broken_connection_learns_it_like_everybody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with joined() as (one, told, other, _):

        def breaks(data: bytes | memoryview) -> int:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

        monkeypatch.setattr(one.swarm.of(other.peer_id)[0].mux.tcp, "transmit", breaks)
        assert one.send(other.peer_id, Lane.SMALL, bytes(10_000))
        await told.until_gone(other.peer_id)
        assert "Broken pipe" in told.reasons[-1]
