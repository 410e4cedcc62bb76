"""Publish and subscribe by topic, for announcements and notices. Content is never sent this way.

Delivery is best effort: a message usually reaches each peer that is connected when it is published once, within
milliseconds. It may be lost, and a peer may repeat an old one; messages must tolerate both. The author is proved. After
an unsubscribe a new subscribe can receive nothing for a minute, so there is only a subscribe.

Nothing runs, and libp2p's part is not set up, before the first subscribe or publish.
"""

from typing import TYPE_CHECKING

import trio

from node.swarm import base
from node.swarm.base import TopicHandler, TopicValidator
from node.swarm.limit_counters import LimitCounters
from node.swarm.limits import USUAL, SwarmLimits
from protocols.errors import TooLarge, Unavailable

if TYPE_CHECKING:
    from node.swarm.libp2p.gossipsub import PubsubAdapter
    from node.swarm.libp2p.host_adapter import HostAdapter

HEARTBEAT_SECONDS = 1.0
START_SECONDS = 5.0
"""How long `publish` waits for the host to run."""


class GossipSubPubSub(base.PubSub):
    """`run` runs beside a host; the other methods may be called at any time."""

    def __init__(self, *, limits: SwarmLimits = USUAL, heartbeat_seconds: float = HEARTBEAT_SECONDS) -> None:
        self._limits = limits
        self._heartbeat_seconds = heartbeat_seconds
        self._topics: dict[str, tuple[TopicHandler, TopicValidator | None]] = {}
        self._gossip: PubsubAdapter | None = None
        self._limit_counters = LimitCounters()
        self._is_wanted = trio.Event()
        self._is_up = trio.Event()

    async def run(
        self, library: "HostAdapter", *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Take part in the topics over a host that runs already, until cancelled."""
        task_status.started()
        await self._is_wanted.wait()
        # These import libp2p's part, which most nodes do not need.
        from node.swarm.libp2p.gossipsub import PubsubAdapter
        from node.swarm.libp2p.gossipsub_parts import Tasks

        self._limit_counters = library.peer_policy.limit_counters
        async with trio.open_nursery() as nursery:
            tasks = Tasks(nursery)
            gossip = PubsubAdapter(
                library, tasks, self._limits, self._deliver, heartbeat_seconds=self._heartbeat_seconds
            )
            try:
                gossip.start()
                self._gossip = gossip
                self._is_up.set()
                while True:
                    self._is_wanted = trio.Event()
                    for topic in self._topics:
                        await gossip.subscribe(topic)
                    await self._is_wanted.wait()
            finally:
                tasks.is_running = False
                self._gossip = None
                self._is_up = trio.Event()
                gossip.stop()

    def subscribe(self, topic: str, handler: TopicHandler, validator: TopicValidator | None = None) -> None:
        assert topic not in self._topics, f"{topic} has a handler already"
        self._topics[topic] = (handler, validator)
        self._is_wanted.set()

    async def publish(self, topic: str, data: bytes) -> None:
        if len(data) > self._limits.gossip_message_bytes_max:
            most = self._limits.gossip_message_bytes_max
            raise TooLarge(f"a message of {len(data):,} bytes is too long to be announced: {most:,} are the most")
        self._is_wanted.set()
        with trio.move_on_after(START_SECONDS):
            await self._is_up.wait()
        if self._gossip is None:
            raise Unavailable("nothing can be announced: this node's host does not run")
        await self._gossip.publish(topic, data)

    def peers(self, topic: str) -> tuple[str, ...]:
        if self._gossip is None:
            return ()
        return tuple(str(peer) for peer in self._gossip.peer_topics.get(topic, ()) if peer in self._gossip.peers)

    def _deliver(self, topic: str, author: str, data: bytes, forwarder: str) -> bool | None:
        handler, validator = self._topics[topic]
        try:
            if validator is not None and not (accepted := validator(author, data, forwarder)):
                return accepted
        except Exception as error:
            self._limit_counters.hit(
                "gossip_failed", topic, f"the validator raised, so a message is refused: {error!r:.200}"
            )
            return False
        try:
            handler(author, data)
        except Exception as error:
            self._limit_counters.hit("gossip_failed", topic, f"a message could not be handled: {error!r:.200}")
        return True
