"""The contract of a store: a log, its versions, its hints, staged envelopes and what is remembered of peers.

Every accepted envelope enters by `merge`, is committed, gets the next sequence number of this node's log, and only
then becomes visible to readers. Two classes keep this contract: `sqlite/store.py` (a node's store) and
`memory/store.py` (for tests, the simulator and throw-away nodes). The tests in `tests/contract` run over both.

Callers: the backends, the services and the API, all on the trio thread. Methods marked `async` may wait for the disk;
plain ones answer from memory at once. Errors: `StorageFull` when the disk is full, `Unavailable` when it failed
otherwise. A failed call leaves nothing behind, what was acknowledged before is not lost, and reads go on.
`StoreRefused` is raised only while opening.
"""

from dataclasses import dataclass
from typing import Protocol

import trio

from node.store.damage import Checks
from node.store.disk_latency import DiskLatency
from node.store.hints import Hints
from node.store.log import Log
from node.store.marks import Marks
from node.store.members import MemberRecords
from node.store.staged import StagedEnvelopes
from node.store.versions import Versions


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStats:
    """How much a store holds, and how its commits ended since it was opened."""

    versions: int
    """Versions that are held, or known by their notice."""
    size_bytes: int | None
    """Size of its files; None when it has no files."""
    commits: int
    commit_failures: int
    at_risk: int
    """Local writes with hints to deliver: fewer peers have them than should."""


class Store(Log, Versions, Hints, StagedEnvelopes, MemberRecords, Marks, Checks, Protocol):
    """The whole contract, and the life of the store itself."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Commit what is submitted until cancelled; then commit the rest, and close. Start it before any other call."""
        ...

    def stats(self) -> StoreStats:
        """For metrics and health; quick, though it asks the file system for sizes."""
        ...

    @property
    def disk(self) -> DiskLatency:
        """How long its commits take."""
        ...

    @property
    def failures(self) -> int:
        """The number of commits that failed since the store was opened."""
        ...

    @property
    def last_failure(self) -> str:
        """The error of the last commit, in words; '' when it succeeded, or when there was none yet."""
        ...
