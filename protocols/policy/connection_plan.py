"""Connection plan: which members a node keeps a connection with, where there are too many to be connected with all.

Most of the connections are for the members nearest to this node: it shares keys with them, and each of them is noticed
when it is gone. The others are spread over the distances, as the buckets of Kademlia are, so that announcements and
lookups get everywhere in few steps. Members that are away take no place of others that can be reached.

A node may be kept by another one that it does not keep itself. So a plan says whom to dial and to ping; a connection
ends only when neither end has used it for a while, and a ping is a use (`idle_too_long`).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from protocols.placement import place_of_peer

NEAR_PARTS, ALL_PARTS = 3, 4
"""So many of so many connections are for the nearest members."""
IDLE_SECONDS = 60.0
"""How long a connection that is not kept stays unused before it ends."""
CROWDED_IDLE_SECONDS = 10.0
"""The same while there are more than twice as many as are to be kept. A peer that keeps this node pings sooner."""


@dataclass(frozen=True, slots=True)
class PlanCandidate:
    """A member that a connection may be kept with."""

    peer: str
    is_connected: bool
    is_away: bool
    """It is not connected, and the last attempt to connect failed."""


def kept(own: str, candidates: Iterable[PlanCandidate], most: int) -> frozenset[str]:
    """The members to keep connections with: all of them, or `most`.

    Of the members in one bucket those are chosen that are connected already: a plan that is made again changes little.
    """
    everybody = list(candidates)
    if len(everybody) <= most:
        return frozenset(candidate.peer for candidate in everybody)
    place = place_of_peer(own)

    def distance(candidate: PlanCandidate) -> int:
        return place_of_peer(candidate.peer) ^ place

    ordered = sorted(everybody, key=distance)
    here = [candidate for candidate in ordered if not candidate.is_away]
    near, far = here[: most * NEAR_PARTS // ALL_PARTS], here[most * NEAR_PARTS // ALL_PARTS :]
    chosen = near + _spread(far, distance, most - len(near))
    away = (candidate for candidate in ordered if candidate.is_away)
    chosen += [candidate for candidate, _ in zip(away, range(most - len(chosen)), strict=False)]
    return frozenset(candidate.peer for candidate in chosen)


def _spread(
    candidates: list[PlanCandidate], distance: Callable[[PlanCandidate], int], most: int
) -> list[PlanCandidate]:
    """So many of these, in turns from each bucket, the farthest bucket first; in a bucket the connected ones first."""
    buckets: dict[int, list[PlanCandidate]] = {}
    for candidate in sorted(candidates, key=lambda each: (not each.is_connected, distance(each))):
        buckets.setdefault(distance(candidate).bit_length(), []).append(candidate)
    turns = [
        (turn, -bits, candidate)
        for bits, bucket in buckets.items()
        for turn, candidate in enumerate(bucket)
    ]  # fmt: skip
    return [candidate for _, _, candidate in sorted(turns, key=lambda each: each[:2])[:most]]


def idle_too_long(idle_seconds: float, *, connections: int, most: int) -> bool:
    """Whether a connection that is not kept and was not used for so long is to end; `connections` is how many there
    are, `most` how many are kept."""
    return idle_seconds >= (CROWDED_IDLE_SECONDS if connections > 2 * most else IDLE_SECONDS)
