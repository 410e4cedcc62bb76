"""The queue of the writer: own operations first, then those of peers by turns, and something of these in each batch."""

from node.store.completion import Completion
from node.store.log import Incoming, Origin
from node.store.sqlite.merge import MergeRequest
from node.store.sqlite.write_queue import (
    BATCH_BYTES_MAX,
    BATCH_LOOKUPS_MAX,
    BATCH_MAX,
    QUEUE_BYTES_MAX,
    QUEUE_MAX,
    Submission,
    WriteQueue,
)
from protocols.envelope import seal
from tests.unit.node.store.sqlite.files import ALICE, AUTHOR, BOB


def submission(size_bytes: int = 1, *, parents: int = 0, reissues: int = 0) -> Submission:
    meta = {"reissues": " ".join([f"{number:064x}" for number in range(reissues)])} if reissues else {}
    item = seal(
        AUTHOR, address="ucxl://a:r@p:t/*^/doc", content=b"", content_type="text/plain", version=9,
        parents=[bytes([number]) * 32 for number in range(parents)], meta=meta,
    )  # fmt: skip
    return Submission(MergeRequest((Incoming(item, Origin.PEER),), 1), size_bytes, lambda _: None, Completion())


def filled(queue: WriteQueue, count: int, each: Submission, *, peer: str | None = None) -> WriteQueue:
    for _ in range(count):
        assert queue.add(each, peer=peer)
    return queue


def test_own_operations_are_taken_before_what_peers_sent_earlier() -> None:
    of_peer, own = submission(), submission()
    queue = filled(WriteQueue(), 3, of_peer, peer=ALICE)
    filled(queue, 2, own)
    batch = queue.next_batch()
    assert [each is own for each in batch] == [True, True, False, False, False]
    assert len(queue) == 0


def test_what_peers_sent_gets_on_while_this_node_is_busy_itself() -> None:
    of_peer, own = submission(), submission()
    queue = filled(WriteQueue(), 10, of_peer, peer=ALICE)
    filled(queue, 3 * BATCH_MAX, own)
    for _ in range(3):
        batch = queue.next_batch()
        assert (len(batch), batch[-1] is of_peer) == (BATCH_MAX + 1, True)
    assert len(queue) == 7


def test_a_batch_ends_where_it_would_take_long() -> None:
    for each, count in (
        (submission(BATCH_BYTES_MAX // 4), 4),
        (submission(parents=BATCH_LOOKUPS_MAX), 1),
        (submission(parents=BATCH_LOOKUPS_MAX // 2), 2),
        (submission(reissues=16), BATCH_LOOKUPS_MAX // 16),
        (submission(), BATCH_MAX),
    ):
        for peer in (ALICE, None):
            queue = filled(WriteQueue(), count + 10, each, peer=peer)
            assert len(queue.next_batch()) == count


def test_a_flood_of_peers_leaves_room_for_own_operations() -> None:
    for each, count in ((submission(), QUEUE_MAX), (submission(QUEUE_BYTES_MAX // 2 + 1), 2)):
        queue = filled(WriteQueue(), count, each, peer=ALICE)
        assert not queue.add(each, peer=ALICE)
        filled(queue, count, each)
        assert not queue.add(each)
        assert len(queue.take_all()) == 2 * count
        assert queue.add(each, peer=ALICE)


def test_a_peer_that_sends_little_does_not_wait_for_all_that_others_sent_before() -> None:
    large, small = submission(BATCH_BYTES_MAX), submission()
    queue = filled(WriteQueue(), 8, large, peer=ALICE)
    filled(queue, 2, small, peer=BOB)
    assert [queue.next_batch() for _ in range(3)] == [[large], [small, large], [small, large]]
    assert len(queue) == 5


def test_each_peer_s_operations_stay_in_their_order() -> None:
    of_alice, of_bob = [submission(size) for size in range(1, 6)], [submission(size) for size in range(11, 14)]
    queue = WriteQueue()
    for number in range(5):
        assert queue.add(of_alice[number], peer=ALICE)
        if number < 3:
            assert queue.add(of_bob[number], peer=BOB)
    batch = queue.next_batch()
    assert [each for each in batch if each in of_alice] == of_alice
    assert [each for each in batch if each in of_bob] == of_bob


def test_a_flood_of_one_peer_leaves_room_for_the_others() -> None:
    for each, count in ((submission(), QUEUE_MAX), (submission(QUEUE_BYTES_MAX // 2 + 1), 2)):
        queue = filled(WriteQueue(), count, each, peer=ALICE)
        assert queue.add(each, peer=BOB)
        assert not queue.add(each, peer=ALICE)
        while queue.add(each, peer=BOB):
            assert len(queue) < 2 * count + 2, "an even share is the most"
