"""Peer faults: why nodes are not connected that should be, each in words."""

from collections.abc import Iterable, Mapping

from protocols.policy.peer_events import MissingPeer
from protocols.policy.peer_target import VOUCHED_SECONDS

APART_SECONDS = 8.0
"""Members that say for so long that they are connected with a node are heard: each notices one that is gone."""


def apart(
    missing: Iterable[MissingPeer], members: Mapping[str, str], now: float
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The nodes that other members are connected with and this node is not, and for longer than it takes to notice that
    one is gone; each with its name and why. First those of which that is believed, then those of which it is not.

    `members` are those that this node is connected with, by peer id, with their names. Two of them have to say it. The
    word of the only one counts for a node that has spoken for itself: a peer that a member makes up is no fault of this
    node.
    """
    believed: list[str] = []
    doubted: list[str] = []
    for peer in missing:
        said = [(member, at) for member, at in peer.vouchers if member in members and now - at <= VOUCHED_SECONDS]
        if not said or max(at for _, at in said) - peer.vouched_since < APART_SECONDS:
            continue
        is_believed = len(said) > 1 or (len(members) == 1 and peer.has_spoken)
        alone = "" if len(said) > 1 else f"{members[said[0][0]]} alone says so; "
        what = f"{peer.name or peer.peer[-8:]} ({alone}{peer.why or 'it is not reached'})"
        (believed if is_believed else doubted).append(what)
    return tuple(believed), tuple(doubted)


def unreached(missing: Iterable[MissingPeer]) -> tuple[str, ...]:
    """The configured nodes whose last dial failed, each with its address and why."""
    return tuple(
        f"the bootstrap node {peer.configured}: {peer.why.removeprefix(f'{peer.configured}: ')}"
        for peer in missing
        if peer.configured and peer.why
    )
