"""Announcements: the vectors, the limits, hostile bytes."""

import contextlib
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.announce import ENCODED_BYTES_MAX, Announcement, decode, seal, verify
from protocols.capabilities import Label, parse, text_of
from protocols.errors import BadSignature, Malformed, TooLarge
from protocols.keys import PrivateKey
from tests.unit.vectors import load

VECTORS = load("announcements")
KEY = PrivateKey.from_seed(bytes(32))


def named(vectors: list[dict[str, Any]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("vector", vectors, ids=lambda vector: vector["name"])


def announcement(**changes: Any) -> Announcement:
    facts: dict[str, Any] = {
        "network": "bzzz", "name": "ada", "addresses": [], "capabilities": [], "sequence": 1, "expires_ms": 2,
    }  # fmt: skip
    return seal(KEY, **{**facts, **changes})


@named(VECTORS["announcements"])
def test_golden_announcements_are_made_and_read(vector: dict[str, Any]) -> None:
    made = seal(
        PrivateKey.from_seed(bytes.fromhex(vector["seed"])),
        network=vector["network"],
        name=vector["node_name"],
        addresses=vector["addresses"],
        capabilities=[parse(text) for text in vector["capabilities"]],
        sequence=vector["sequence"],
        expires_ms=vector["expires_ms"],
    )
    assert (made.facts.hex(), made.signature.hex()) == (vector["facts"], vector["signature"])
    assert made.encoded.hex() == vector["encoded"]
    read = decode(bytes.fromhex(vector["encoded"]))
    verify(read)
    assert read == made
    assert [text_of(capability) for capability in read.capabilities] == vector["capabilities"]
    assert read.is_farewell == (vector["expires_ms"] == 0)


@named(VECTORS["kept"])
def test_facts_of_a_later_minor_are_covered_and_passed_on(vector: dict[str, Any]) -> None:
    encoded = bytes.fromhex(vector["encoded"])
    read = decode(encoded)
    verify(read)
    assert read.encoded == encoded


@named(VECTORS["refused"])
def test_what_is_no_announcement_is_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        decode(bytes.fromhex(vector["encoded"]))


@named(VECTORS["forged"])
def test_a_forged_announcement_is_found_out(vector: dict[str, Any]) -> None:
    with pytest.raises(BadSignature):
        verify(decode(bytes.fromhex(vector["encoded"])))


def test_a_change_of_any_fact_is_found_out() -> None:
    facts, signature = msgpack.unpackb(announcement().encoded)
    for at in range(len(facts)):
        changed = bytes([*facts[:at], facts[at] ^ 1, *facts[at + 1 :]])
        with pytest.raises((Malformed, BadSignature)):
            verify(decode(msgpack.packb([changed, signature])))


def test_an_announcement_that_is_too_long_is_neither_made_nor_read() -> None:
    assert len(announcement(capabilities=[Label(f"l{n}", "x" * 100) for n in range(64)]).encoded) < ENCODED_BYTES_MAX
    with pytest.raises(TooLarge, match="fewer"):
        announcement(capabilities=[Label(f"l{n}", "€" * 128) for n in range(64)])
    with pytest.raises(TooLarge):
        decode(bytes(ENCODED_BYTES_MAX + 1))


@given(st.binary(max_size=200))
def test_any_bytes_are_an_announcement_or_refused(data: bytes) -> None:
    for encoded in (data, msgpack.packb([data, bytes(64)])):
        with contextlib.suppress(Malformed):
            decode(encoded)
