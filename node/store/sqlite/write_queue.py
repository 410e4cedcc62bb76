"""The operations that wait for a commit: those of this node's own callers, and what peers sent unasked.

Own operations are committed first. A peer may send more than a disk takes, and no caller of this node is to wait behind
that. Each batch takes something of the peers' too, so that they get on while this node is busy itself.
"""

from collections import deque
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
    """Each kind is committed in the order of its submission."""

    def __init__(self) -> None:
        self._own: deque[Submission] = deque()
        self._of_peers: deque[Submission] = deque()
        self._own_bytes = 0
        self._bytes_of_peers = 0

    def __len__(self) -> int:
        return len(self._own) + len(self._of_peers)

    def add(self, submission: Submission, *, is_of_peer: bool) -> bool:
        """Add an operation; False when too many of its kind wait."""
        queue, size_bytes = (self._of_peers, self._bytes_of_peers) if is_of_peer else (self._own, self._own_bytes)
        if len(queue) >= QUEUE_MAX or size_bytes > QUEUE_BYTES_MAX:
            return False
        queue.append(submission)
        if is_of_peer:
            self._bytes_of_peers += submission.size_bytes
        else:
            self._own_bytes += submission.size_bytes
        return True

    def next_batch(self) -> list[Submission]:
        """Take the operations of the next transaction."""
        batch: list[Submission] = []
        size_bytes = lookups = 0
        while self._own and len(batch) < BATCH_MAX and size_bytes < BATCH_BYTES_MAX and lookups < BATCH_LOOKUPS_MAX:
            batch.append(self._own.popleft())
            size_bytes += batch[-1].size_bytes
            lookups += _lookups(batch[-1].operation)
        self._own_bytes -= size_bytes
        own_bytes, is_first = size_bytes, True
        while self._of_peers and (
            is_first or (len(batch) < BATCH_MAX and size_bytes < BATCH_BYTES_MAX and lookups < BATCH_LOOKUPS_MAX)
        ):
            batch.append(self._of_peers.popleft())
            size_bytes += batch[-1].size_bytes
            lookups += _lookups(batch[-1].operation)
            is_first = False
        self._bytes_of_peers -= size_bytes - own_bytes
        return batch

    def take_all(self) -> list[Submission]:
        """Take everything that waits."""
        found = [*self._own, *self._of_peers]
        self._own.clear()
        self._of_peers.clear()
        self._own_bytes = self._bytes_of_peers = 0
        return found


def _lookups(operation: MergeRequest | Operation) -> int:
    if not isinstance(operation, MergeRequest):
        return 0
    return sum([len(incoming.item.parents) + len(incoming.item.reissues) for incoming in operation.batch])
