"""Commits under a deadline of their own: a call waits longer for this machine's disk than for the swarm.

On ordinary disks a sync takes 200 ms now and then. A write that gave up after the swarm's deadline would have made its
caller wait for nothing, and its outcome would be unknown.
"""

import trio

from node.store.base import Store
from node.store.disk_latency import DiskLatency
from node.store.errors import CommitLate
from node.store.log import Incoming, Merged
from protocols.envelope import Envelope, Notice
from protocols.errors import Indeterminate


async def merge_in_time(store: Store, incoming: Incoming, *, seconds: float, now_ms: int) -> Merged:
    """Merge one envelope; return once it is durable. Raises `Indeterminate` when that takes longer than `seconds`."""
    started = trio.current_time()
    deadline = started + seconds
    try:
        (merged,) = await store.merge((incoming,), now_ms=now_ms, deadline=deadline)
    except CommitLate:
        raise commit_timed_out(incoming.item, store.disk, started, deadline) from None
    return merged


def commit_timed_out(written: Envelope | Notice, disk: DiskLatency, started: float, deadline: float) -> Indeterminate:
    """The error of a write that was not confirmed in time; it says whether disk, queue or process was late."""
    return Indeterminate(
        f"the write was not confirmed within {deadline - started:.1f} s, and may appear: "
        f"{disk.why_late(started, deadline)}. Ask for it by its digest, then try again",
        digest=written.digest.hex(),
        address=written.address,
    )
