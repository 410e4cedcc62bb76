"""Peer faults: why nodes are not connected that should be, each in words."""

from collections.abc import Iterable

from protocols.policy.peer_events import MissingPeer
from protocols.policy.peer_target import VOUCHED_SECONDS

APART_SECONDS = 5.0
"""Members that say for so long that they are connected with a node are believed: each notices one that is gone."""


def apart(missing: Iterable[MissingPeer], now: float) -> tuple[str, ...]:
    """The nodes that other members are connected with and this node is not, and for longer than it takes to notice that
    one is gone; each with its name and why."""
    return tuple(
        f"{peer.name or peer.peer[-8:]} ({peer.why or 'it is not reached'})"
        for peer in missing
        if now - peer.vouched_at <= VOUCHED_SECONDS and peer.vouched_at - peer.vouched_since >= APART_SECONDS
    )


def unreached(missing: Iterable[MissingPeer]) -> tuple[str, ...]:
    """The configured nodes whose last dial failed, each with its address and why."""
    return tuple(
        f"the bootstrap node {peer.configured}: {peer.why.removeprefix(f'{peer.configured}: ')}"
        for peer in missing
        if peer.configured and peer.why
    )
