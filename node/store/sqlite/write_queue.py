"""The operations that wait for a commit: those of this node's own callers, and what peers sent unasked.

Own operations are committed first. A peer may send more than a disk takes, and no caller of this node is to wait behind
that. Each batch takes something of the peers' too, so that they get on while this node is busy itself. The peers have
turns: one that sends a little waits for one operation of each other, and not for all that they sent before.
"""

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, NamedTuple

from node.store.completion import CallbackCompletion, Completion
from node.store.sqlite.merge import MergeRequest
from node.store.sqlite.transaction import Operation

BATCH_MAX = 1024
BATCH_BYTES_MAX = 8 * 1024 * 1024
BATCH_LOOKUPS_MAX = 256
"""Parents and reissued versions in one batch, beyond which nothing is added to it: each is looked up, and most likely
written to a random place (50 microseconds)."""
QUEUE_MAX = 16_384
QUEUE_BYTES_MAX = 64 * 1024 * 1024
"""What may wait for a slow disk, of each kind. Beyond it calls fail at once: the callers of the earlier ones may have
given up."""


class Submission(NamedTuple):
    """An operation to commit. `publish` turns its result into the caller's; it must not fail."""

    operation: MergeRequest | Operation
    size_bytes: int
    publish: Callable[[Any], Any]
    completion: Completion[Any] | CallbackCompletion


class WriteQueue:
    """The operations of this node, and those of each peer, are committed in the order of their submission."""

    def __init__(self) -> None:
        self._own: deque[Submission] = deque()
        self._own_bytes = 0
        self._of_peers: OrderedDict[str, deque[Submission]] = OrderedDict()
        """By peer, the one whose turn is next first. None is empty."""
        self._bytes_of: dict[str, int] = {}
        self._count_of_peers = 0
        self._bytes_of_peers = 0

    def __len__(self) -> int:
        return len(self._own) + self._count_of_peers

    def add(self, submission: Submission, *, peer: str | None = None) -> bool:
        """Add an operation, of this node itself without `peer`. False when too many of its kind wait; a peer of which
        less than an even share waits is not refused for the others."""
        if peer is None:
            if len(self._own) >= QUEUE_MAX or self._own_bytes > QUEUE_BYTES_MAX:
                return False
            self._own.append(submission)
            self._own_bytes += submission.size_bytes
            return True
        if self._is_full_for(peer):
            return False
        self._of_peers.setdefault(peer, deque()).append(submission)
        self._count_of_peers += 1
        self._add_bytes(peer, submission.size_bytes)
        return True

    def _is_full_for(self, peer: str) -> bool:
        if self._count_of_peers < QUEUE_MAX and self._bytes_of_peers <= QUEUE_BYTES_MAX:
            return False
        waiting, peers = self._of_peers.get(peer, ()), len(self._of_peers.keys() | {peer})
        return len(waiting) * peers >= QUEUE_MAX or self._bytes_of.get(peer, 0) * peers > QUEUE_BYTES_MAX

    def _add_bytes(self, peer: str, size_bytes: int) -> None:
        self._bytes_of_peers += size_bytes
        self._bytes_of[peer] = self._bytes_of.get(peer, 0) + size_bytes

    def next_batch(self) -> list[Submission]:
        """Take the operations of the next transaction."""
        batch: list[Submission] = []
        size_bytes = lookups = 0
        while self._own and len(batch) < BATCH_MAX and size_bytes < BATCH_BYTES_MAX and lookups < BATCH_LOOKUPS_MAX:
            batch.append(self._own.popleft())
            size_bytes += batch[-1].size_bytes
            lookups += _lookups(batch[-1].operation)
        self._own_bytes -= size_bytes
        is_first = True
        while self._of_peers and (
            is_first or (len(batch) < BATCH_MAX and size_bytes < BATCH_BYTES_MAX and lookups < BATCH_LOOKUPS_MAX)
        ):
            batch.append(self._next_of_peers())
            size_bytes += batch[-1].size_bytes
            lookups += _lookups(batch[-1].operation)
            is_first = False
        return batch

    def _next_of_peers(self) -> Submission:
        """Take the first operation of the peer whose turn it is; then the others have theirs."""
        peer, waiting = self._of_peers.popitem(last=False)
        submission = waiting.popleft()
        self._count_of_peers -= 1
        self._add_bytes(peer, -submission.size_bytes)
        if waiting:
            self._of_peers[peer] = waiting
        else:
            del self._bytes_of[peer]
        return submission

    def take_all(self) -> list[Submission]:
        """Take everything that waits."""
        found = [*self._own]
        while self._of_peers:
            found.append(self._next_of_peers())
        self._own.clear()
        self._own_bytes = 0
        return found


def _lookups(operation: MergeRequest | Operation) -> int:
    if not isinstance(operation, MergeRequest):
        return 0
    count = 0
    for incoming in operation.batch:
        item = incoming.item
        if item.parents:
            count += len(item.parents)
        if item.meta:
            count += len(item.reissues)
    return count
