"""Topics in the virtual network: a message spreads over the connections, and each node passes it on to a few peers.

It stands for GossipSub (`node/swarm/libp2p/gossipsub.py`), whose mesh has about as many peers. What GossipSub does
against losses (peers tell each other which messages they have) is left out, so a message that a link loses is lost.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple

from node.swarm.base import TopicHandler, TopicValidator

FAN_OUT = 8
"""Peers that a node sends one message to."""
SEEN_MAX = 4096


class TopicMessage(NamedTuple):
    topic: str
    author: str
    number: int
    """Of this message among those of its author."""
    data: bytes


class VirtualPubSub:
    """The `PubSub` of one endpoint. `subscribed` lists the connected peers on a topic, `send` hands one a message."""

    def __init__(
        self,
        peer_id: str,
        chance: Random,
        subscribed: Callable[[str], Sequence[str]],
        send: Callable[[str, TopicMessage], None],
    ) -> None:
        self._peer_id = peer_id
        self._chance = chance
        self._subscribed = subscribed
        self._send = send
        self._topics: dict[str, tuple[TopicHandler, TopicValidator | None]] = {}
        self._seen: dict[tuple[str, int], None] = {}
        self._number = 0
        self.sent = 0
        """Messages that were sent to a peer, those that were passed on included."""

    def subscribe(self, topic: str, handler: TopicHandler, validator: TopicValidator | None = None) -> None:
        assert topic not in self._topics, f"{topic} has a handler already"
        self._topics[topic] = (handler, validator)

    def is_subscribed(self, topic: str) -> bool:
        return topic in self._topics

    async def publish(self, topic: str, data: bytes) -> None:
        self._number += 1
        self._spread(TopicMessage(topic, self._peer_id, self._number, data), but="")

    def peers(self, topic: str) -> tuple[str, ...]:
        return tuple(self._subscribed(topic))

    def arrived(self, peer: str, message: TopicMessage) -> None:
        """A peer sent a message: deliver it and pass it on, once."""
        name = (message.author, message.number)
        if message.author == self._peer_id or name in self._seen or message.topic not in self._topics:
            return
        self._seen[name] = None
        if len(self._seen) > SEEN_MAX:
            del self._seen[next(iter(self._seen))]
        handler, validator = self._topics[message.topic]
        if validator is None or validator(message.author, message.data, peer):
            handler(message.author, message.data)
            self._spread(message, but=peer)

    def _spread(self, message: TopicMessage, *, but: str) -> None:
        peers = [peer for peer in self._subscribed(message.topic) if peer not in (but, message.author)]
        for peer in self._chance.sample(peers, min(FAN_OUT, len(peers))):
            self.sent += 1
            self._send(peer, message)
