"""Parts of GossipSub that replace libp2p's own: tasks, seen messages, the message cache, outgoing queues, the router.

libp2p's own parts end the host when a task fails, remember messages without bound in a thread of their own, and drop
the frames after the first 32 of a queue silently.
"""

import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, cast

import trio
from libp2p.custom_types import TProtocol
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.mcache import CacheEntry, MessageCache, default_msg_id_fn
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.rpc_queue import RpcQueue

import node.swarm.libp2p.release  # noqa: F401  # refuses any release of libp2p but the one that has the names used here
from node.swarm.limits import SwarmLimits

log = logging.getLogger(__name__)

PROTOCOLS = tuple(TProtocol(f"/meshsub/1.{minor}.0") for minor in (2, 1, 0))
SEEN_SECONDS, SEEN_MAX = 120.0, 65_536
MESSAGE_BYTES = 512
"""The cost of a kept message beside its own bytes."""


class Tasks:
    """Replaces the manager of libp2p's services: an exception of a task ends that task alone."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.is_running = True

    def run_task(self, task: Callable[..., Awaitable[Any]], *args: Any, name: str | None = None) -> None:
        if self.is_running:
            self._nursery.start_soon(self._guarded, task, *args)

    def run_daemon_task(self, task: Callable[..., Awaitable[Any]], *args: Any, name: str | None = None) -> None:
        """Run a task for ever; it is started again when it fails."""
        self._nursery.start_soon(self._restarted, task, *args)

    async def _guarded(self, task: Callable[..., Awaitable[Any]], *args: Any) -> None:
        try:
            await task(*args)
        except Exception:
            log.exception("a task of GossipSub failed")

    async def _restarted(self, task: Callable[..., Awaitable[Any]], *args: Any) -> None:
        while self.is_running:
            await self._guarded(task, *args)
            await trio.sleep(1)


class SeenMessages:
    """The ids of messages that were seen. Replaces libp2p's, which has a thread of its own and no bound."""

    def __init__(self) -> None:
        self._ids: dict[bytes, float] = {}

    def has(self, number: bytes) -> bool:
        return number in self._ids

    def add(self, number: bytes) -> bool:
        if number in self._ids:
            return False
        now = trio.current_time()
        while self._ids and (len(self._ids) >= SEEN_MAX or next(iter(self._ids.values())) < now - SEEN_SECONDS):
            del self._ids[next(iter(self._ids))]
        self._ids[number] = now
        return True


class BoundedMessageCache(MessageCache):
    """The messages of the last heartbeats, for peers that ask for one. Replaces libp2p's, which has no bound.

    It holds `bytes_max` bytes, the cost of each message included; the oldest messages make room for a new one.
    """

    history: list[deque[CacheEntry]]  # type: ignore[assignment]  # newest first, and in each the oldest first

    def __init__(self, bytes_max: int, window_size: int, history_size: int) -> None:
        super().__init__(window_size, history_size)
        self.history = [deque() for _ in range(history_size)]
        self._bytes_max = bytes_max
        self._bytes = 0

    def put(self, msg: rpc_pb2.Message) -> None:
        number = default_msg_id_fn(msg)
        if number in self.msgs:
            return
        kept = self.msgs[number] = rpc_pb2.Message()
        kept.CopyFrom(msg)  # a part of a frame keeps all of the frame in memory
        self.history[0].append(CacheEntry(number, kept.topicIDs))
        self._bytes += _cost(kept)
        while self._bytes > self._bytes_max:
            self._forget(next(beat for beat in reversed(self.history) if beat).popleft())

    def shift(self) -> None:
        """A heartbeat is over: drop the messages that were kept for the whole history."""
        for entry in self.history.pop():
            self._forget(entry)
        self.history.insert(0, deque())

    def _forget(self, entry: CacheEntry) -> None:
        self._bytes -= _cost(self.msgs.pop(entry.mid))


def _cost(msg: rpc_pb2.Message) -> int:
    return msg.ByteSize() + MESSAGE_BYTES


class OutboxTotals:
    """The number of all `Outbox`es, and the bytes that they hold together."""

    def __init__(self) -> None:
        self.count = 0
        self.bytes = 0


class Outbox(RpcQueue):
    """Frames that wait to be written to one peer, bounded by number and by bytes. `on_full` is called for each drop.

    While all outboxes together hold more than they may, each may hold an even share of that, or one frame, so that
    peers that read nothing take no room from the others.
    """

    def __init__(self, limits: SwarmLimits, totals: OutboxTotals, on_full: Callable[[], None]) -> None:
        super().__init__(limits.gossip_queue_max, limits.gossip_rpc_bytes_max)
        self._bytes = 0
        self._bytes_max = limits.gossip_queue_bytes_max
        self._totals = totals
        self._bytes_of_all_max = limits.gossip_queue_bytes_in_all_max
        self._on_full = on_full
        self._totals.count += 1

    def push(self, rpc: rpc_pb2.RPC, priority: bool = False) -> bool:
        if self.closed:
            return False
        size = rpc.ByteSize()
        if (self._bytes and self._bytes + size > self._most(size)) or not super().push(rpc, priority):
            self._on_full()
            return False
        self._add(size)
        return True

    async def pop(self) -> rpc_pb2.RPC | None:
        rpc = await super().pop()
        if rpc is not None:
            self._add(-rpc.ByteSize())
        return rpc

    def close(self) -> None:
        """Drop all that waits."""
        if not self.closed:
            while self._queue.pop():
                pass
            self._add(-self._bytes)
            self._totals.count -= 1
        super().close()

    def _most(self, more: int) -> float:
        if self._totals.bytes + more <= self._bytes_of_all_max:
            return self._bytes_max
        return min(self._bytes_max, self._bytes_of_all_max / self._totals.count)

    def _add(self, size: int) -> None:
        self._bytes += size
        self._totals.bytes += size


def make_router(heartbeat_seconds: float, history_bytes_max: int) -> GossipSub:
    """libp2p's router, with the parts off that judge peers (`node/swarm/peer_policy.py` does), dial, adapt or drop."""
    router = GossipSub(
        protocols=PROTOCOLS,
        degree=6,
        degree_low=4,
        degree_high=12,
        heartbeat_interval=cast(int, heartbeat_seconds),
        max_idontwant_messages=1024,
        adaptive_gossip_enabled=False,
        spam_protection_enabled=False,
        eclipse_protection_enabled=False,
        max_pending_messages_per_peer=16,
        pending_messages_ttl=5.0,
    )
    router.scorer = None
    router.mcache = BoundedMessageCache(history_bytes_max, router.mcache.window_size, router.mcache.history_size)
    return router
