"""Claims: a node that lacks a version lets one feeder send it, and tells the others to wait.

Every holder of a key asks a nearer newcomer what it lacks, at about the same time. Without claims each would send it
all. A claim ends after a while, so that a feeder that died, or that only claims, keeps a version away for a moment
only: then it is the turn of another one that asked.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

CLAIM_SECONDS = 30.0
"""How long the first feeder that asks has to send a version."""
RIVAL_SECONDS = 60.0
"""How long after that another one that asked before has precedence."""
CLAIMS_MAX = 65_536
"""Claims that are kept; about 10 MiB. Beyond that the oldest is forgotten, and a version may come twice."""


@dataclass(slots=True)
class _Claim:
    feeder: str
    until: float
    has_rival: bool = False


class Claims:
    """Of one node that is fed. Times are seconds on one monotonic clock."""

    def __init__(self) -> None:
        self._claims: OrderedDict[bytes, _Claim] = OrderedDict()

    def __len__(self) -> int:
        return len(self._claims)

    def take(self, feeder: str, lacking: Sequence[bytes], now: float) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
        """Of versions that this node lacks, by digest: those that this feeder is to send, and those that another one
        is about to send."""
        granted = {digest: self._take(feeder, digest, now) for digest in lacking}
        missing = tuple(digest for digest, is_granted in granted.items() if is_granted)
        return missing, tuple(digest for digest, is_granted in granted.items() if not is_granted)

    def _take(self, feeder: str, digest: bytes, now: float) -> bool:
        claim = self._claims.get(digest)
        if claim is None or now > claim.until + RIVAL_SECONDS or (now >= claim.until and claim.feeder != feeder):
            self._claims[digest] = _Claim(feeder, now + CLAIM_SECONDS)
            self._claims.move_to_end(digest)
            if len(self._claims) > CLAIMS_MAX:
                self._claims.popitem(last=False)
            return True
        if claim.feeder != feeder:
            claim.has_rival = True
            return False
        if now < claim.until:
            return True
        if not claim.has_rival:
            claim.until = now + CLAIM_SECONDS
        return not claim.has_rival
