"""Who should hold a key: the k members nearest to it by the XOR distance of Kademlia.

Source: Maymounkov and Mazieres, "Kademlia" (2002), with the libp2p kad-dht specification's identifiers: SHA-256 of
the key, and SHA-256 of the peer id's bytes. This is the one answer to 'who holds what'; a routing table that knows
more members than we met will replace what is handed in, not the question.
"""

import heapq
from collections.abc import Iterable
from functools import lru_cache
from hashlib import sha256

from protocols.keys import peer_id_bytes


@lru_cache(maxsize=65536)
def place_of_peer(peer: str) -> int:
    """Where a peer stands in the key space, as a number of 256 bits."""
    return int.from_bytes(sha256(peer_id_bytes(peer)).digest(), "big")


def place_of_key(key: bytes) -> int:
    """Where a key stands in the key space, as a number of 256 bits."""
    return int.from_bytes(sha256(key).digest(), "big")


def nearest(key: bytes, peers: Iterable[str], k: int) -> tuple[str, ...]:
    """The k peers nearest to a key, the nearest first."""
    place = place_of_key(key)
    return tuple(heapq.nsmallest(k, peers, key=lambda peer: place_of_peer(peer) ^ place))
