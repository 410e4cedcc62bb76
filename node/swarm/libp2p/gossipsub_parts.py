"""What `gossipsub.py` is put together from, in the place of parts of libp2p's: tasks, memory, queues, and its router.

libp2p's own parts end the host when a task fails, remember without bound in a thread of their own, and drop what is
over 32 frames without a word.
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

import node.swarm.libp2p.release  # noqa: F401  # refuses any other release of libp2p than the one whose names these are
from node.swarm.limits import SwarmLimits

log = logging.getLogger(__name__)

PROTOCOLS = tuple(TProtocol(f"/meshsub/1.{minor}.0") for minor in (2, 1, 0))
SEEN_SECONDS, SEEN_MAX = 120.0, 65_536
MESSAGE_BYTES = 512
"""What a message that is kept takes beside its own bytes."""


class Tasks:
    """Stands in for the manager of libp2p's services: whatever a task raises ends that task, and nothing else."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.is_running = True

    def run_task(self, task: Callable[..., Awaitable[Any]], *args: Any, name: str | None = None) -> None:
        if self.is_running:
            self._nursery.start_soon(self._guarded, task, *args)

    def run_daemon_task(self, task: Callable[..., Awaitable[Any]], *args: Any, name: str | None = None) -> None:
        """One that runs for ever, and is started again should it fail."""
        self._nursery.start_soon(self._for_ever, task, *args)

    async def _guarded(self, task: Callable[..., Awaitable[Any]], *args: Any) -> None:
        try:
            await task(*args)
        except Exception:
            log.exception("a task of GossipSub failed, and only that")

    async def _for_ever(self, task: Callable[..., Awaitable[Any]], *args: Any) -> None:
        while self.is_running:
            await self._guarded(task, *args)
            await trio.sleep(1)


class SeenMessages:
    """Which messages are known. In the place of libp2p's, which has a thread of its own and no bound."""

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
    """The messages of the last heartbeats, for who asks for one of them: in the place of libp2p's, which has no bound.

    Holds `bytes_max` bytes, with what each message costs beside its own: for a new one the oldest go.
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
        """A heartbeat is over: what has been kept for all of them goes."""
        for entry in self.history.pop():
            self._forget(entry)
        self.history.insert(0, deque())

    def _forget(self, entry: CacheEntry) -> None:
        self._bytes -= _cost(self.msgs.pop(entry.mid))


def _cost(msg: rpc_pb2.Message) -> int:
    return msg.ByteSize() + MESSAGE_BYTES


class Outboxes:
    """What all `Outbox`es hold together."""

    def __init__(self) -> None:
        self.count = 0
        self.bytes = 0


class Outbox(RpcQueue):
    """What waits to be written to one peer: bounded by number and by bytes. `on_full` hears of what is dropped.

    While all of them together hold more than they may, each has its even share of that, or one frame, so that peers who
    read nothing take nothing from the others.
    """

    def __init__(self, limits: SwarmLimits, all_of_them: Outboxes, on_full: Callable[[], None]) -> None:
        super().__init__(limits.gossip_queue_max, limits.gossip_rpc_bytes_max)
        self._bytes = 0
        self._bytes_max = limits.gossip_queue_bytes_max
        self._all = all_of_them
        self._all_bytes_max = limits.gossip_queue_bytes_in_all_max
        self._on_full = on_full
        self._all.count += 1

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
        """What waits is not sent any more."""
        if not self.closed:
            while self._queue.pop():
                pass
            self._add(-self._bytes)
            self._all.count -= 1
        super().close()

    def _most(self, more: int) -> float:
        if self._all.bytes + more <= self._all_bytes_max:
            return self._bytes_max
        return min(self._bytes_max, self._all_bytes_max / self._all.count)

    def _add(self, size: int) -> None:
        self._bytes += size
        self._all.bytes += size


def mesh(heartbeat_seconds: float, history_bytes_max: int) -> GossipSub:
    """libp2p's router, without what judges peers (`node/swarm/peer_policy.py` does), dials, adapts or drops."""
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
