"""Duty: which other members a node feeds with the versions of a key that it has.

The first of the holders, the live member nearest to the key, feeds the others. Any other node that has the key feeds
the first one. So a version reaches all holders from wherever a copy of it is: a newcomer that is nearest gets it from
the holders it displaced, and then feeds the rest. No node must know who has what before it asks.
"""

from dataclasses import dataclass

from protocols.placement import nearest


@dataclass(frozen=True, slots=True, kw_only=True)
class Duty:
    """Of the node `own` among the `live` members, itself included: those that are not gone. Each key has `replication`
    holders."""

    own: str
    live: tuple[str, ...]
    replication: int

    def targets(self, key: bytes) -> tuple[str, ...]:
        """The members that this node feeds with a key it has, the nearest first."""
        holders = nearest(key, self.live, self.replication)
        if holders[0] == self.own:
            return holders[1:]
        return holders[:1]
