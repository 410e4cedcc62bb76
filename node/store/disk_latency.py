"""Disk latency: how long commits take, and what made a commit late: the disk, the queue before it, or this process.

The store reports each commit here. Readers are the metrics, the health report, and the message of a write that was not
confirmed in time.
"""

from collections.abc import Callable

import trio

from node.metrics import Histogram

LATE_LOOP_SECONDS = 0.1
"""A deadline that this process notices so much too late says that the process was busy, not the disk."""


class DiskLatency:
    """One for each store. Times are in seconds, on trio's clock."""

    def __init__(self) -> None:
        self.commits = Histogram()
        """From the moment a batch is handed to the disk until its callers have their results."""
        self.syncs = Histogram()
        """The part of a commit in which the operating system makes it durable."""
        self.committing_since: float | None = None
        """When the commit that is under way began; None when there is none."""
        self._on_commit: list[Callable[[float], None]] = []

    def subscribe(self, on_commit: Callable[[float], None]) -> None:
        """Call this with the seconds of each commit. It must be quick, must not wait and must not raise."""
        self._on_commit.append(on_commit)

    def begin(self) -> None:
        self.committing_since = trio.current_time()

    def end(self, *, sync_seconds: float | None = None) -> None:
        """The commit succeeded. Without `sync_seconds` all of it was the disk's."""
        assert self.committing_since is not None
        seconds = trio.current_time() - self.committing_since
        self.committing_since = None
        self.commits.observe(seconds)
        self.syncs.observe(seconds if sync_seconds is None else sync_seconds)
        for on_commit in self._on_commit:
            on_commit(seconds)

    def fail(self) -> None:
        """The commit failed: that is no measure of the disk."""
        self.committing_since = None

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
        return f"the disk has not confirmed the commit that is under way for {now - since:.1f} s"
