"""A picture of the peers to test, and sightings of peers."""

from protocols.policy.peers import Peers
from protocols.policy.sighting import Sighting, Source


def peers(**options: float) -> Peers:
    """Without jitter the waits after failures are 0.125, 0.25, 0.5, 1, 1 ... seconds."""
    return Peers("own", chance=lambda: 0.0, **options)  # type: ignore[arg-type]


def sighted(
    peer: str, *addresses: str, is_configured: bool = False, seen_at: float | None = None
) -> Sighting:  # fmt: skip
    source = Source.CONFIGURATION if is_configured else Source.DHT
    return Sighting(peer=peer, addresses=addresses, source=source, seen_at=seen_at)


def hearsay(peer: str, *addresses: str, reporter: str = "liar") -> Sighting:
    return Sighting(peer=peer, addresses=addresses, source=Source.EXCHANGE, reporter=reporter)
