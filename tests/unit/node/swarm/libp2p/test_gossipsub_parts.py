"""The memory and the outgoing queues of GossipSub: bounded, whatever peers send and do not read."""

import os
from functools import partial

import trio
from libp2p.pubsub.mcache import default_msg_id_fn
from libp2p.pubsub.pb import rpc_pb2

from node.swarm.libp2p.gossipsub_parts import MESSAGE_BYTES, BoundedMessageCache, Outbox, OutboxTotals
from node.swarm.limits import SwarmLimits

TOPIC = "topic"
BYTES = 1000


def message(size: int = BYTES) -> rpc_pb2.Message:
    """A message that takes so many bytes in a message cache."""
    made = rpc_pb2.Message(from_id=os.urandom(8), seqno=os.urandom(8), topicIDs=[TOPIC])
    made.data = bytes(size - MESSAGE_BYTES - made.ByteSize() - 3)
    assert made.ByteSize() + MESSAGE_BYTES == size
    return made


def rpc(size: int) -> rpc_pb2.RPC:
    return rpc_pb2.RPC(publish=[rpc_pb2.Message(data=bytes(size))])


class Boxes:
    """The outboxes of a few peers, and how often each was full."""

    def __init__(self, count: int, **limits: int) -> None:
        self.totals = OutboxTotals()
        self.full = [0] * count
        self.each = [
            Outbox(SwarmLimits(**limits), self.totals, partial(self._filled, number)) for number in range(count)
        ]

    def _filled(self, number: int) -> None:
        self.full[number] += 1


def test_the_oldest_messages_go_for_new_ones() -> None:
    cache = BoundedMessageCache(3 * BYTES, 3, 5)
    first, *others = [message() for _ in range(4)]
    cache.put(first)
    cache.shift()
    for other in others:
        cache.put(other)
    assert cache.get(default_msg_id_fn(first)) is None
    assert [cache.get(number) for number in cache.window(TOPIC)] == others


def test_a_message_too_long_for_the_history_is_not_kept() -> None:
    cache = BoundedMessageCache(BYTES - 1, 3, 5)
    cache.put(message())
    assert cache.window(TOPIC) == []
    cache.put(short := message(BYTES - 1))
    assert cache.window(TOPIC) == [default_msg_id_fn(short)]


def test_a_message_that_comes_twice_is_kept_once() -> None:
    cache = BoundedMessageCache(2 * BYTES, 3, 5)
    first, second = message(), message()
    for each in (first, first, second, second):
        cache.put(each)
    assert cache.window(TOPIC) == [default_msg_id_fn(first), default_msg_id_fn(second)]


def test_messages_are_announced_for_the_window_and_kept_for_the_history() -> None:
    cache = BoundedMessageCache(100 * BYTES, 3, 5)
    cache.put(kept := message())
    number = default_msg_id_fn(kept)
    announced, answered = [], []
    for _ in range(6):
        announced.append(cache.window(TOPIC) == [number])
        answered.append(cache.get(number) == kept)
        cache.shift()
    assert announced == [True] * 3 + [False] * 3
    assert answered == [True] * 5 + [False]
    cache.put(kept)
    assert cache.window(TOPIC) == [number], "a message that was dropped by time has released its room"


def test_the_frames_that_one_peer_does_not_read_are_bounded() -> None:
    boxes = Boxes(2, gossip_queue_bytes_max=10_000)
    assert [boxes.each[0].push(rpc(4_000)) for _ in range(4)] == [True, True, False, False]
    assert boxes.each[1].push(rpc(4_000))
    assert boxes.full == [2, 0]


def test_peers_that_read_nothing_take_no_room_from_others() -> None:
    boxes = Boxes(4, gossip_queue_bytes_max=10_000, gossip_queue_bytes_in_all_max=16_500)
    for mute in boxes.each[:2]:
        while mute.push(rpc(2_000)):
            pass
    assert boxes.totals.bytes <= 16_500
    assert [boxes.each[3].push(rpc(2_000)) for _ in range(3)] == [True, True, False], "an even share is 4,125"
    assert [boxes.each[2].push(rpc(5_000)) for _ in range(2)] == [True, False], "or one that is longer"


async def test_written_and_dropped_frames_make_room() -> None:
    boxes = Boxes(2, gossip_queue_bytes_max=10_000, gossip_queue_bytes_in_all_max=10_000)
    read, gone = boxes.each
    assert read.push(rpc(4_000))
    assert gone.push(rpc(4_000))
    assert not gone.push(rpc(4_000))
    with trio.fail_after(30):
        assert await read.pop() is not None
    assert gone.push(rpc(4_000))
    gone.close()
    gone.close()
    assert (boxes.totals.bytes, boxes.totals.count) == (0, 1)
    with trio.fail_after(30):
        assert await gone.pop() is None
    assert not gone.push(rpc(1))
    assert read.push(rpc(9_000))
