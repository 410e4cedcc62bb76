"""Announce swarm: the topic of announcements, and what the announce finder may know of members."""

from collections.abc import Callable

from node.swarm.base import PubSub
from node.swarm.members import Members
from node.swarm.peer_policy import PeerPolicy
from protocols.announce import TOPIC
from protocols.policy.reputation import Offence


class PubSubAnnounceSwarm:
    """The `AnnounceSwarm` of `discovery/announce.py`."""

    def __init__(self, pubsub: PubSub, members: Members, peer_policy: PeerPolicy) -> None:
        self._pubsub = pubsub
        self._members = members
        self._peer_policy = peer_policy

    def subscribe(self, received: Callable[[str, bytes, str], bool | None]) -> None:
        self._pubsub.subscribe(TOPIC, _taken_already, received)

    async def publish(self, data: bytes) -> None:
        await self._pubsub.publish(TOPIC, data)

    def is_listed(self, peer: str) -> bool:
        return self._peer_policy.is_listed(peer)

    def is_member(self, peer: str) -> bool:
        return self._members.get(peer) is not None

    def is_gone(self, peer: str) -> bool:
        return self._members.is_gone(peer)

    def note_alive(self, peer: str) -> None:
        self._members.note_alive(peer)

    def clock_offset_ms(self, peer: str) -> float:
        presence = self._members.get(peer)
        return presence.clock_offset_ms or 0.0 if presence is not None else 0.0

    def count(self, kind: str) -> None:
        self._peer_policy.limit_counters.count(kind)

    def refuse(self, kind: str, source: str, what: str, *, is_offence: bool = False) -> None:
        if is_offence:
            self._peer_policy.limit_counters.count(kind)
            self._peer_policy.blame(source, Offence.BAD_INPUT, what)
        else:
            self._peer_policy.limit_counters.hit(kind, source, what)


def _taken_already(author: str, data: bytes) -> None:
    """What is accepted was kept when it was checked."""
