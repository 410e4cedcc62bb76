"""Placement: the holders of a key are the nearest members by XOR, the same on every node."""

from hashlib import sha256

import base58
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import InvalidPayload
from protocols.keys import PrivateKey
from protocols.placement import nearest, place_of_key, place_of_peer

PEERS = tuple(PrivateKey.from_seed(bytes([number]) * 32).peer_id for number in range(40))
keys = st.binary(min_size=49, max_size=49)
swarms = st.lists(st.sampled_from(PEERS), unique=True)


def test_places_are_hashes_of_the_key_and_of_the_bytes_of_the_peer_id() -> None:
    assert place_of_key(b"") == int("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", 16)
    assert place_of_peer(PEERS[0]) == int(sha256(base58.b58decode(PEERS[0])).hexdigest(), 16)


def test_a_text_that_is_no_peer_id_has_no_place() -> None:
    with pytest.raises(InvalidPayload):
        place_of_peer("n1")


@given(keys, swarms, st.integers(0, 50))
def test_the_nearest_peers_are_first_and_each_is_there_once(key: bytes, swarm: list[str], k: int) -> None:
    place = int(sha256(key).hexdigest(), 16)
    by_distance = sorted(swarm, key=lambda peer: int(sha256(base58.b58decode(peer)).hexdigest(), 16) ^ place)
    assert nearest(key, swarm, k) == tuple(by_distance[:k])


@given(keys, swarms, st.data())
def test_nodes_that_met_in_another_order_agree(key: bytes, swarm: list[str], data: st.DataObject) -> None:
    assert nearest(key, data.draw(st.permutations(swarm)), 3) == nearest(key, swarm, 3)


@given(keys, st.lists(st.sampled_from(PEERS), unique=True, min_size=2), st.integers(1, 5))
def test_one_peer_more_replaces_at_most_one_holder(key: bytes, swarm: list[str], k: int) -> None:
    *before, newcomer = swarm
    old, new = nearest(key, before, k), nearest(key, swarm, k)
    assert set(new) - set(old) <= {newcomer}
    assert len(set(old) - set(new)) <= 1
