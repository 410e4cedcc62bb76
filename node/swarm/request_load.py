"""The requests of peers that this node works on: their number and their bytes, for each peer and for all."""

from typing import NamedTuple

from node.swarm.limits import SwarmLimits


class Excess(NamedTuple):
    """Why one more request would be too much. With `is_of_all` the total of all peers is, and no peer is to blame."""

    why: str
    is_of_all: bool


class RequestLoad:
    """Counts requests from `begin` to `end`, and decides with the limits whether one more is too much."""

    def __init__(self, limits: SwarmLimits) -> None:
        self._limits = limits
        self.requests: dict[str, int] = {}
        """By peer; no entry for a peer without any."""
        self._bytes: dict[str, int] = {}
        self.bytes_of_all = 0

    def excess(self, peer: str, size: int) -> Excess | None:
        """Why one more request of this peer, of `size` bytes, is too much; None when it is not.

        The only request of a peer is never too large by itself: the length of frames has its own limit.
        """
        limits = self._limits
        count = self.requests.get(peer, 0)
        if count >= limits.serving_max:
            return Excess(f"{count} requests of this peer are under way", False)
        if count and (size_bytes := self._bytes[peer]) + size > limits.serving_bytes_max:
            return Excess(f"requests of {size_bytes:,} bytes of this peer are under way", False)
        if (size_bytes := self.bytes_of_all) and size_bytes + size > limits.serving_bytes_in_all_max:
            return Excess(f"requests of {size_bytes:,} bytes of all peers are under way", True)
        return None

    def begin(self, peer: str, size: int) -> None:
        self.requests[peer] = self.requests.get(peer, 0) + 1
        self._bytes[peer] = self._bytes.get(peer, 0) + size
        self.bytes_of_all += size

    def end(self, peer: str, size: int) -> None:
        self.requests[peer] -= 1
        self._bytes[peer] -= size
        self.bytes_of_all -= size
        if not self.requests[peer]:
            del self.requests[peer], self._bytes[peer]
