"""What GossipSub remembers and what waits to be written: bounded, whoever speaks and whoever does not read."""

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
    """One that takes so many bytes in a history."""
    made = rpc_pb2.Message(from_id=os.urandom(8), seqno=os.urandom(8), topicIDs=[TOPIC])
    made.data = bytes(size - MESSAGE_BYTES - made.ByteSize() - 3)
    assert made.ByteSize() + MESSAGE_BYTES == size
    return made


def rpc(size: int) -> rpc_pb2.RPC:
    return rpc_pb2.RPC(publish=[rpc_pb2.Message(data=bytes(size))])


class Boxes:
    """The queues to a few peers, and how often each was full."""

    def __init__(self, count: int, **limits: int) -> None:
        self.all = OutboxTotals()
        self.full = [0] * count
        self.each = [Outbox(SwarmLimits(**limits), self.all, partial(self._filled, number)) for number in range(count)]

    def _filled(self, number: int) -> None:
        self.full[number] += 1


def test_the_oldest_messages_go_for_new_ones() -> None:
    history = BoundedMessageCache(3 * BYTES, 3, 5)
    first, *others = [message() for _ in range(4)]
    history.put(first)
    history.shift()
    for other in others:
        history.put(other)
    assert history.get(default_msg_id_fn(first)) is None
    assert [history.get(number) for number in history.window(TOPIC)] == others


def test_a_message_too_long_for_the_history_is_not_kept() -> None:
    history = BoundedMessageCache(BYTES - 1, 3, 5)
    history.put(message())
    assert history.window(TOPIC) == []
    history.put(short := message(BYTES - 1))
    assert history.window(TOPIC) == [default_msg_id_fn(short)]


def test_a_message_that_comes_twice_is_kept_once() -> None:
    history = BoundedMessageCache(2 * BYTES, 3, 5)
    first, second = message(), message()
    for each in (first, first, second, second):
        history.put(each)
    assert history.window(TOPIC) == [default_msg_id_fn(first), default_msg_id_fn(second)]


def test_messages_are_told_of_for_the_window_and_kept_for_the_history() -> None:
    history = BoundedMessageCache(100 * BYTES, 3, 5)
    history.put(kept := message())
    number = default_msg_id_fn(kept)
    told, answered = [], []
    for _ in range(6):
        told.append(history.window(TOPIC) == [number])
        answered.append(history.get(number) == kept)
        history.shift()
    assert told == [True] * 3 + [False] * 3
    assert answered == [True] * 5 + [False]
    history.put(kept)
    assert history.window(TOPIC) == [number], "what went by time has given back its room"


def test_what_one_peer_does_not_read_is_bounded() -> None:
    boxes = Boxes(2, gossip_queue_bytes_max=10_000)
    assert [boxes.each[0].push(rpc(4_000)) for _ in range(4)] == [True, True, False, False]
    assert boxes.each[1].push(rpc(4_000))
    assert boxes.full == [2, 0]


def test_peers_who_read_nothing_take_nothing_from_the_others() -> None:
    boxes = Boxes(4, gossip_queue_bytes_max=10_000, gossip_queue_bytes_in_all_max=16_500)
    for mute in boxes.each[:2]:
        while mute.push(rpc(2_000)):
            pass
    assert boxes.all.bytes <= 16_500
    assert [boxes.each[3].push(rpc(2_000)) for _ in range(3)] == [True, True, False], "an even share is 4,125"
    assert [boxes.each[2].push(rpc(5_000)) for _ in range(2)] == [True, False], "or one that is longer"


async def test_what_was_written_and_what_will_not_be_makes_room() -> None:
    boxes = Boxes(2, gossip_queue_bytes_max=10_000, gossip_queue_bytes_in_all_max=10_000)
    read, gone = boxes.each
    assert read.push(rpc(4_000))
    assert gone.push(rpc(4_000))
    assert not gone.push(rpc(4_000))
    with trio.fail_after(1):
        assert await read.pop() is not None
    assert gone.push(rpc(4_000))
    gone.close()
    gone.close()
    assert (boxes.all.bytes, boxes.all.count) == (0, 1)
    with trio.fail_after(1):
        assert await gone.pop() is None
    assert not gone.push(rpc(1))
    assert read.push(rpc(9_000))
