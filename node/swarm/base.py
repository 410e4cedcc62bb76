"""The network interface of a node: whole frames to and from peers.

Two networks implement it: libp2p's (`node/swarm/libp2p/host.py`) and the simulator's (`netsim/virtual/endpoint.py`).
A network moves frames between peers that know each other by their Ed25519 peer ids, and reports which peers connect
and disconnect. It knows nothing of requests, envelopes or members: those are in `rpc.py`, one layer above. `send`
never waits, so that no caller can be cancelled in the middle of a write: it puts the frame in a bounded queue, and
one task for each stream writes that queue.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from typing import Protocol

import trio


class Lane(IntEnum):
    """Each lane is one long-lived stream, so that a megabyte on one never delays a get on the other."""

    SMALL = 0
    BULK = 1


FRAME_BYTES_MAX = 8 * 1024 * 1024
"""The longest frame; a peer that announces a longer one loses its connection."""
BULK_BYTES_MIN = 32 * 1024
"""Frames of this size and more take the bulk lane."""


class DialFailed(Exception):
    """None of a peer's addresses led to it; the message gives the reason for each."""

    def __init__(self, message: str, others: Mapping[str, str] | None = None) -> None:
        """`others` has the peer that proved to be at an address in place of the wanted one, or this node itself."""
        super().__init__(message)
        self.others = dict(others or {})


class ListenFailed(Exception):
    """This node cannot listen on an address (in use, of another machine, malformed); the message says what to do."""


class Receiver(Protocol):
    """What a network calls. Plain functions, called on the trio thread; they must be quick and must not raise."""

    def connected(self, peer: str, address: str, dialled: bool) -> None:
        """Frames can now be sent to a peer. Called once for each time that the peer connects.

        `address` is the multiaddr that this node dialled, or the remote one of a peer that dialled this node.
        """
        ...

    def disconnected(self, peer: str, reason: str) -> None:
        """No frame comes from the peer or reaches it until it connects again; queued frames may be lost."""
        ...

    def received(self, peer: str, lane: Lane, frame: bytes) -> None:
        """A whole frame came from a peer. Frames of one lane come in order."""
        ...


TopicHandler = Callable[[str, bytes], None]
"""Called with the author's peer id and the data, on the trio thread; quick. When it raises, it loses the message."""
TopicValidator = Callable[[str, bytes, str], bool | None]
"""Decides about a message (author's peer id, data, peer that passed it on) before the handler sees it.

True: deliver it, and pass it on to other peers. None: do neither. False: do neither, and blame the peer that passed it
on. To raise is to return False.
"""


class PubSub(Protocol):
    """Publish and subscribe by topic, for announcements. Best effort: a message may be lost, or come again later."""

    def subscribe(self, topic: str, handler: TopicHandler, validator: TopicValidator | None = None) -> None:
        """Receive the messages of other nodes on a topic from now on. Each topic has one handler."""
        ...

    async def publish(self, topic: str, data: bytes) -> None:
        """Send a message on a topic. Raises `TooLarge`, or `Unavailable` while no host runs."""
        ...

    def peers(self, topic: str) -> tuple[str, ...]:
        """The connected peers that are subscribed to a topic."""
        ...


class KadFailed(Exception):
    """A message of the DHT brought no answer; the message says why."""


class KadReceiver(Protocol):
    """What a network calls of the DHT. `found` and `stopped` are quick and must not raise."""

    def found(self, peer: str, addresses: tuple[str, ...]) -> None:
        """A connected peer says that it speaks the protocol, and where it can be dialled. It may say so again."""
        ...

    def stopped(self, peer: str) -> None:
        """A peer says that it does not speak the protocol, or not any more."""
        ...

    async def answer(self, peer: str, remote: str, message: bytes) -> bytes | None:
        """Answer a message of a peer whose end of the connection is at `remote`; None: there is no answer to it.

        The messages of one stream come one after another. A `BzzzError` ends the stream.
        """
        ...


class Kad(Protocol):
    """The messages of the DHT (`protocols/kademlia/messages.py`), to and from any peer that speaks its protocol.

    Such a peer need not be a member, and need not have lanes.
    """

    def attach(self, receiver: KadReceiver) -> None:
        """Speak the protocol. Called once, before `Network.run`; without it the node does not speak it."""
        ...

    async def ask(self, peer: str, *messages: bytes) -> bytes:
        """Send messages to a connected peer, and return the answer to the last one; the others have none.

        The caller bounds the time: to cancel it is harmless. Raises `KadFailed`.
        """
        ...

    def is_connected(self, peer: str) -> bool:
        """Whether `ask` can reach the peer now."""
        ...

    async def connect(self, peer: str, addresses: Sequence[str], *, timeout: float) -> None:
        """Connect to a peer, at one of its addresses, for this protocol; at once when it is connected.

        The connection ends when it is not used. Raises `DialFailed` within `timeout` seconds.
        """
        ...


class Network(Protocol):
    """The interface. A peer is given by its id in text, `12D3KooW...`; an address is a multiaddr in text."""

    @property
    def peer_id(self) -> str: ...

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where this node can be dialled now, loopback addresses included; known once it runs. No 0.0.0.0, no port 0;
        each ends in /p2p/<own id>, and the best ones come first."""
        ...

    async def addresses_changed(self) -> None:
        """Wait until `addresses` are others than now: an interface was lost or came, or its address changed."""
        ...

    @property
    def pubsub(self) -> PubSub:
        """Topics, over the same connections as the frames."""
        ...

    @property
    def kad(self) -> Kad:
        """The DHT's messages, over the same connections."""
        ...

    async def run(self, receiver: Receiver, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen and serve until cancelled, then close every socket within a second.

        Reports that it has started when `addresses` are known. Raises `ListenFailed` before that.
        """
        ...

    async def dial(self, addresses: Sequence[str], *, timeout: float) -> str:
        """Connect to a peer by any of its addresses and return its id; at once when it is connected already.

        At an address that ends in /p2p/<id> only that peer is accepted. Raises `DialFailed` within `timeout` seconds.
        """
        ...

    @property
    def twin(self) -> str:
        """That another node runs with this node's identity, where, and what this one does about it; '' when none is
        known."""
        ...

    async def look_for_twin(self, addresses: Sequence[str]) -> None:
        """Find out whether another node with this node's identity answers at one of these addresses; now and then only.

        A peer knows this node by them. They may be old ones of this node, or lies. Does not raise.
        """
        ...

    def twin_reported(self, log_id: str, address: str, *, yields: bool) -> None:
        """A peer saw another node with this node's identity, which has this log and was at this address ('': not told).

        With `yields` this node is the one of the two that backs off.
        """
        ...

    def address_fault(self, address: str) -> str:
        """Why this network can never dial a text as an address, in words; '' when it may. Does not raise."""
        ...

    def send(self, peer: str, lane: Lane, frame: bytes) -> bool:
        """Queue a frame. Never waits. False: the peer is not connected or its queue is full, and nothing was queued."""
        ...

    def disconnect(self, peer: str, reason: str) -> None:
        """Close the connection to a peer now, even when the peer does not read; `disconnected` follows."""
        ...

    def connected_peers(self) -> tuple[str, ...]: ...
