"""Placement: the holders of a key are the k members nearest to it by the XOR distance of Kademlia.

Source: Maymounkov and Mazieres, "Kademlia" (2002), with the identifiers of the libp2p kad-dht specification: SHA-256 of
the key, and SHA-256 of the bytes of the peer id. Every part of a node that needs the holders of a key asks here.
"""

import heapq
from collections.abc import Iterable
from functools import lru_cache
from hashlib import sha256

from protocols.keys import peer_id_bytes


@lru_cache(maxsize=65536)
def place_of_peer(peer: str) -> int:
    """The position of a peer in the key space, a number of 256 bits."""
    return int.from_bytes(sha256(peer_id_bytes(peer)).digest(), "big")


def place_of_key(key: bytes) -> int:
    """The position of a key in the key space, a number of 256 bits."""
    return int.from_bytes(sha256(key).digest(), "big")


def nearest(key: bytes, peers: Iterable[str], k: int) -> tuple[str, ...]:
    """The k peers nearest to a key, the nearest first."""
    place = place_of_key(key)
    return tuple(heapq.nsmallest(k, peers, key=lambda peer: place_of_peer(peer) ^ place))
