"""The seam under the swarm: frames to peers. Two networks keep it: `node/swarm/libp2p/host.py` and the simulator's.

A network moves whole frames between peers that know each other by their Ed25519 peer ids, and says who came and who
went. It knows nothing of requests, envelopes or members: that is `rpc.py`, above. `send` never waits, so that no
caller can be cancelled in the middle of a write: what is to be written is queued, bounded, and written by one task
for each stream.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import Protocol

import trio


class Lane(IntEnum):
    """One long-lived stream each, so that a megabyte never delays a get."""

    SMALL = 0
    BULK = 1


FRAME_BYTES_MAX = 8 * 1024 * 1024
"""No frame is longer; a peer that announces a longer one loses its connection."""
BULK_BYTES_MIN = 32 * 1024
"""Frames from this size on go by the bulk lane."""


class DialFailed(Exception):
    """None of a peer's addresses led to it; the message names each and why."""


class ListenFailed(Exception):
    """An address cannot be listened on (in use, not ours, malformed); the message says which and what to do."""


class Receiver(Protocol):
    """Whom a network tells. Plain functions, called on the trio thread; they must be quick and not raise."""

    def connected(self, peer: str, address: str, dialled: bool) -> None:
        """A peer can be sent frames. `address` is the multiaddr it was dialled at, or its remote one. Once a peer."""
        ...

    def disconnected(self, peer: str, reason: str) -> None:
        """No frame will come from or reach it until it is connected again; what was queued may be lost."""
        ...

    def received(self, peer: str, lane: Lane, frame: bytes) -> None:
        """A whole frame came. In order within a lane."""
        ...


class Network(Protocol):
    """The contract. A peer is its id in text, `12D3KooW...`; an address is a multiaddr in text."""

    @property
    def peer_id(self) -> str: ...

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where others can dial us: concrete (no 0.0.0.0, no port 0), each ending in /p2p/<our id>. After the start."""
        ...

    async def run(self, receiver: Receiver, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen and serve until cancelled, then close every socket within a second. Started once `addresses` hold.

        Raises `ListenFailed` before it has started.
        """
        ...

    async def dial(self, addresses: Sequence[str], *, timeout: float) -> str:
        """Connect to a peer by any of its addresses, and answer its id; at once when it is connected already.

        An address that ends in /p2p/<id> accepts that peer alone. Raises `DialFailed`, within `timeout` seconds.
        """
        ...

    def send(self, peer: str, lane: Lane, frame: bytes) -> bool:
        """Queue a frame. False when the peer is not connected or its queue is full: nothing was queued. Never waits."""
        ...

    def disconnect(self, peer: str, reason: str) -> None:
        """Give up the connection to a peer, now, even if it does not read; `disconnected` follows."""
        ...

    def connected_peers(self) -> tuple[str, ...]: ...
