"""Keys for the refresh of buckets: their places are in the bucket."""

import random

import pytest

from protocols.kademlia.refresh_key import refresh_key
from protocols.kademlia.routing_events import Refresh
from protocols.keys import PrivateKey, peer_id_bytes
from protocols.placement import place_of_key, place_of_peer

OWN = PrivateKey.from_seed(bytes(32)).peer_id


def test_the_bucket_of_this_node_is_refreshed_by_its_own_peer_id() -> None:
    refresh = Refresh(place_of_peer(OWN), 256)
    assert refresh_key(refresh, OWN, chance=lambda: 0.5) == peer_id_bytes(OWN)


@pytest.mark.parametrize("prefix_bits", [0, 1, 5, 9])
def test_the_place_of_the_key_shares_the_prefix_of_the_bucket_and_not_one_bit_more(prefix_bits: int) -> None:
    place = place_of_peer(OWN) ^ (1 << (255 - prefix_bits))
    chance = random.Random(7).random
    keys = [refresh_key(Refresh(place, prefix_bits), OWN, chance=chance) for _ in range(10)]
    assert len(set(keys)) == 10, "another one each time"
    for key in keys:
        assert len(key) == len(peer_id_bytes(OWN))
        assert 256 - (place_of_key(key) ^ place_of_peer(OWN)).bit_length() == prefix_bits


def test_for_a_bucket_that_is_hard_to_hit_the_key_is_as_near_as_trials_lead() -> None:
    place = place_of_peer(OWN) ^ (1 << 155)
    key = refresh_key(Refresh(place, 100), OWN, chance=lambda: 0.5)
    assert 256 - (place_of_key(key) ^ place).bit_length() >= 9
