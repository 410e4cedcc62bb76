"""A contact: a peer of the DHT, and where it was said to be reachable."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Contact:
    """`peer` is a peer id in text, `addresses` are multiaddrs in text; () when none is known."""

    peer: str
    addresses: tuple[str, ...] = ()
