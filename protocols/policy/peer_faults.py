"""Peer faults: why nodes are not connected that should be, each in words."""

from collections.abc import Collection, Iterable

from protocols.policy.peer_events import MissingPeer
from protocols.policy.peer_target import VOUCHED_SECONDS

APART_SECONDS = 8.0
"""Members that say for so long that they are connected with a node are believed: each notices one that is gone."""
VOUCHERS_MIN = 2
"""So many connected members have to say it, or the only one: what one member makes up is no fault of this node."""


def apart(missing: Iterable[MissingPeer], members: Collection[str], now: float) -> tuple[str, ...]:
    """The nodes that other members are connected with and this node is not, and for longer than it takes to notice that
    one is gone; each with its name and why. `members` are those that this node is connected with."""
    return tuple(
        f"{peer.name or peer.peer[-8:]} ({peer.why or 'it is not reached'})"
        for peer in missing
        if _is_believed(peer, members, now)
    )


def _is_believed(peer: MissingPeer, members: Collection[str], now: float) -> bool:
    said = [at for member, at in peer.vouchers if member in members and now - at <= VOUCHED_SECONDS]
    least = min(VOUCHERS_MIN, len(members))
    return bool(said) and len(said) >= least and max(said) - peer.vouched_since >= APART_SECONDS


def unreached(missing: Iterable[MissingPeer]) -> tuple[str, ...]:
    """The configured nodes whose last dial failed, each with its address and why."""
    return tuple(
        f"the bootstrap node {peer.configured}: {peer.why.removeprefix(f'{peer.configured}: ')}"
        for peer in missing
        if peer.configured and peer.why
    )
