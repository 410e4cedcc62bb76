"""A key to look up for the refresh of a bucket.

A request carries a key, and each peer computes the place of the key by itself. So a place in a bucket is not enough:
a key whose place is there is found by trial, as go-libp2p does.
"""

from collections.abc import Callable

from protocols.kademlia.routing_events import Refresh
from protocols.keys import PUBLIC_KEY_BYTES, peer_id_bytes
from protocols.placement import place_of_key, place_of_peer

TRIALS_MAX = 4096
"""One in 2 ** (prefix_bits + 1) keys is in the bucket. In swarms of 100,000 nodes that are enough trials for nearly all
buckets, and they take some milliseconds."""


def refresh_key(refresh: Refresh, own: str, *, chance: Callable[[], float]) -> bytes:
    """The key, in the form of a peer id in binary. For the bucket of this node it is its own peer id; for another one
    the first key whose place is in it, or the nearest that was found. `chance` draws from [0, 1)."""
    key = peer_id_bytes(own)
    if refresh.place == place_of_peer(own):
        return key
    head = key[:-PUBLIC_KEY_BYTES]
    random = int(chance() * 2**53) << 64
    best, best_distance = key, 1 << 256
    for number in range(TRIALS_MAX):
        trial = head + (random + number).to_bytes(PUBLIC_KEY_BYTES, "big")
        distance = place_of_key(trial) ^ refresh.place
        if distance < best_distance:
            best, best_distance = trial, distance
            if 256 - distance.bit_length() > refresh.prefix_bits:
                break
    return best
