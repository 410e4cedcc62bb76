"""Disk latency: how long commits take, and what made one late: the disk, the queue before it, or too few processors.

The store reports each commit here. Readers are the metrics, the health report, and the message of a write that was not
confirmed in time.
"""

from collections.abc import Callable

import trio

from node.metrics import Histogram
from node.store.commit_work import SLOW_SECONDS, CommitWork, Spent

LATE_LOOP_SECONDS = 0.1
"""A deadline that this process notices so much too late says that the process was busy, not the disk."""


class DiskLatency:
    """One for each store. Times are in seconds, on trio's clock."""

    def __init__(self, work: CommitWork | None = None) -> None:
        """`work` is what the thread of the store's commits notes; without one each commit is the disk's alone."""
        self.commits = Histogram()
        """From the moment a batch is handed to the disk until its callers have their results."""
        self.syncs = Histogram()
        """The part of a commit in which the operating system makes it durable."""
        self.committing_since: float | None = None
        """When the commit that is under way began; None when there is none."""
        self._work = work
        self._on_commit: list[Callable[[float, bool], None]] = []

    def subscribe(self, on_commit: Callable[[float, bool], None]) -> None:
        """Call this with the seconds of each commit, and whether most of them were the disk's. It must be quick, must
        not wait and must not raise."""
        self._on_commit.append(on_commit)

    def begin(self) -> None:
        self.committing_since = trio.current_time()
        if self._work is not None:
            self._work.hand_over()

    def end(self) -> None:
        """The commit succeeded."""
        assert self.committing_since is not None
        seconds = trio.current_time() - self.committing_since
        self.committing_since = None
        self.commits.observe(seconds)
        self.syncs.observe(seconds if self._work is None else self._work.sync_seconds)
        is_of_disk = seconds < SLOW_SECONDS or self._is_of_disk()
        for on_commit in self._on_commit:
            on_commit(seconds, is_of_disk)

    def fail(self) -> None:
        """The commit failed: that is no measure of the disk."""
        self.committing_since = None

    def _is_of_disk(self) -> bool:
        return self._work is None or (spent := self._work.spent()).disk >= sum(spent) / 2.0

    def why_late(self, started: float, deadline: float) -> str:
        """Why a write that was submitted at `started` was not confirmed at `deadline`, in words."""
        now = trio.current_time()
        if now > deadline + LATE_LOOP_SECONDS:
            return f"this process was too busy: it noticed the end of the wait {(now - deadline) * 1000:.0f} ms late"
        since = self.committing_since
        if since is None:
            return "this process was too busy: no commit is under way, and the write is still in the queue"
        if now - since < (now - started) / 2.0:
            return f"it waited in the queue behind other writes; the commit now under way began {now - since:.1f} s ago"
        if self._work is None or self._is_of_disk():
            return f"the disk has not confirmed the commit that is under way for {now - since:.1f} s"
        return _why_not_disk(self._work.spent(), is_ended=self._work.is_ended)


def _why_not_disk(spent: Spent, *, is_ended: bool) -> str:
    seconds = sum(spent)
    if spent.ready >= spent.process:
        return (
            f"this machine was too busy: of the {seconds:.1f} s of the commit that is under way its thread waited "
            f"{spent.ready:.1f} s for a processor, and {spent.disk:.1f} s for the disk"
        )
    if is_ended:
        return f"this process was too busy: the commit was made, and its result not taken in {seconds:.1f} s"
    return (
        f"this process was too busy: of the {seconds:.1f} s of the commit that is under way its thread waited "
        f"{spent.disk:.1f} s for the disk"
    )
