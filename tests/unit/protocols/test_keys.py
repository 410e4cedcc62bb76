"""Keys, peer ids and signatures: the vectors, and malformed input."""

import contextlib
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from protocols import keys
from protocols.errors import InvalidPayload
from protocols.keys import PrivateKey
from tests.unit.vectors import load

VECTORS = load("keys")
KEY = PrivateKey.from_seed(bytes(range(32)))
OTHER = PrivateKey.from_seed(bytes(32))


def named(vectors: list[dict[str, Any]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("vector", vectors, ids=lambda vector: vector["name"])


@named(VECTORS["keys"])
def test_seed_gives_the_golden_key_and_peer_id(vector: dict[str, str]) -> None:
    key = PrivateKey.from_seed(bytes.fromhex(vector["seed"]))
    assert key.peer_id == vector["peer_id"]
    assert key.to_protobuf().hex() == vector["private_key_protobuf"]
    assert keys.public_key(key.peer_id).hex() == vector["public_key"]
    assert keys.peer_id_of(bytes.fromhex(vector["public_key"])) == vector["peer_id"]
    assert keys.peer_id_bytes(key.peer_id).hex() == vector["multihash"] == "0024" + vector["public_key_protobuf"]


@named(VECTORS["keys"])
def test_signatures_are_golden_and_hold_for_another_library(vector: dict[str, str]) -> None:
    message, signature = bytes.fromhex(vector["message"]), bytes.fromhex(vector["signature"])
    assert PrivateKey.from_seed(bytes.fromhex(vector["seed"])).sign(message) == signature
    assert keys.verify(vector["peer_id"], message, signature)
    theirs = Ed25519PublicKey.from_public_bytes(bytes.fromhex(vector["public_key"]))
    theirs.verify(signature, message)
    with pytest.raises(InvalidSignature):
        theirs.verify(signature, message + b"!")


@named(VECTORS["keys"])
@pytest.mark.parametrize("form", ["private_key_protobuf", "private_key_protobuf_of_the_seed"])
def test_private_keys_of_other_implementations_are_read(vector: dict[str, str], form: str) -> None:
    key = PrivateKey.from_protobuf(bytes.fromhex(vector[form]))
    assert (key.seed.hex(), key.peer_id) == (vector["seed"], vector["peer_id"])


def test_fields_of_a_private_key_may_come_in_any_order() -> None:
    written = KEY.to_protobuf()
    assert PrivateKey.from_protobuf(written[2:] + written[:2]).seed == KEY.seed


@named(VECTORS["refused_private_keys"])
def test_what_is_no_private_key_is_refused(vector: dict[str, str]) -> None:
    with pytest.raises(InvalidPayload) as refused:
        PrivateKey.from_protobuf(bytes.fromhex(vector["private_key_protobuf"]))
    assert refused.value.details["field"] == "private_key"


def test_a_refusal_names_the_kind_of_key_that_was_given() -> None:
    with pytest.raises(InvalidPayload, match="RSA"):
        PrivateKey.from_protobuf(b"\x08\x00\x12\x02xx")


@given(st.binary(max_size=80))
def test_any_bytes_are_a_private_key_or_refused(data: bytes) -> None:
    with contextlib.suppress(InvalidPayload):
        assert len(PrivateKey.from_protobuf(data).seed) == 32


@pytest.mark.parametrize("seed", [b"", bytes(31), bytes(33), bytes(64)], ids=len)
def test_a_seed_has_32_bytes(seed: bytes) -> None:
    with pytest.raises(InvalidPayload, match="32 bytes"):
        PrivateKey.from_seed(seed)


@pytest.mark.parametrize("text", VECTORS["refused_peer_ids"])
def test_what_is_no_ed25519_peer_id_is_refused(text: str) -> None:
    with pytest.raises(InvalidPayload, match="peer id"):
        keys.peer_id_bytes(text)
    assert not keys.verify(text, b"x", KEY.sign(b"x"))


@given(st.one_of(st.text(), st.none(), st.integers(), st.binary(), st.lists(st.text()), st.just("\ud800")))
def test_nothing_else_passes_for_a_peer_id(value: Any) -> None:
    with pytest.raises(InvalidPayload):
        keys.public_key(value)
    assert keys.verify(value, b"x", bytes(64)) is False


@given(st.binary(min_size=32, max_size=32))
def test_peer_id_and_public_key_are_inverse(public: bytes) -> None:
    assert keys.public_key(keys.peer_id_of(public)) == public


@given(st.binary(max_size=100), st.integers(0, 511))
def test_a_signature_with_a_bit_flipped_does_not_hold(message: bytes, bit: int) -> None:
    signature = bytearray(KEY.sign(message))
    signature[bit // 8] ^= 1 << bit % 8
    assert not keys.verify(KEY.peer_id, message, bytes(signature))


def test_a_signature_holds_for_its_author_its_message_and_its_length_alone() -> None:
    signature = KEY.sign(b"message")
    assert keys.verify(KEY.peer_id, b"message", signature)
    assert not keys.verify(OTHER.peer_id, b"message", signature)
    assert not keys.verify(KEY.peer_id, b"massage", signature)
    assert not keys.verify(KEY.peer_id, b"message", signature[:-1])
    assert not keys.verify(KEY.peer_id, b"essage", signature + b"m")


@named(VECTORS["refused_signatures"])
def test_a_signature_is_refused_although_its_equation_holds(vector: dict[str, str]) -> None:
    message, signature = bytes.fromhex(vector["message"]), bytes.fromhex(vector["signature"])
    assert not keys.verify(vector["peer_id"], message, signature)


@pytest.mark.parametrize(
    "point", ["00" * 32, "01" + "00" * 31, "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"]
)
def test_a_public_key_of_small_order_signs_nothing(point: str) -> None:
    """With such a key one signature would hold for many messages."""
    peer_id = keys.peer_id_of(bytes.fromhex(point))
    assert not keys.verify(peer_id, b"anything", bytes.fromhex(point) + bytes(32))
    assert not keys.verify(peer_id, b"anything", b"\x01" + bytes(63))


def test_a_key_is_printed_without_its_secret() -> None:
    assert repr(KEY) == f"PrivateKey({KEY.peer_id})"
    assert KEY.seed.hex() not in f"{KEY}{KEY!r}"
