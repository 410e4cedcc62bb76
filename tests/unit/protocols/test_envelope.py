"""Envelopes: the vectors, the limits, hostile bytes, and the total order."""

import copy
import dataclasses
import tracemalloc
from hashlib import sha256
from typing import Any, NamedTuple

import msgpack
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from protocols import envelope, errors, keys
from protocols.envelope import (
    NOTICE_BYTES_MAX,
    Envelope,
    Notice,
    Ordered,
    decode,
    decode_notice,
    order_key,
    seal,
    verify,
)
from protocols.errors import BadSignature, BzzzError, InvalidAddress, InvalidPayload, TooLarge, UnsupportedFormat
from protocols.header import DOMAIN, ENCODED_BYTES_MAX, HEADER_BYTES_MAX
from protocols.keys import PrivateKey
from protocols.ucxl import ADDRESS_BYTES_MAX
from tests.unit.vectors import load

VECTORS = load("envelopes")
KEY = PrivateKey.from_seed(bytes(range(32)))
OTHER = PrivateKey.from_seed(bytes(32))
ADDRESS = "ucxl://claude:architect@bzzz:auth-system/*^/decisions/protocol.json"


def named(vectors: list[dict[str, Any]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("vector", vectors, ids=lambda vector: vector["name"])


def sealed(key: PrivateKey = KEY, **changes: Any) -> Envelope:
    fields = {"address": ADDRESS, "content": b"x", "content_type": "text/plain", "version": 1 << 16, "parents": ()}
    return seal(key, **{**fields, **changes})


def signed(*fields: Any, content: bytes = b"x", key: PrivateKey = KEY) -> bytes:
    """Any fields, signed and encoded as they are, as a faulty or newer implementation might send them."""
    return signed_header(msgpack.packb(fields), content, key)


def signed_header(header: bytes, content: bytes = b"x", key: PrivateKey = KEY) -> bytes:
    return bytes(msgpack.packb([header, key.sign(DOMAIN + header), content]))


def fields_of(one: Envelope) -> list[Any]:
    fields: list[Any] = msgpack.unpackb(one.header)
    return fields


def assert_golden(one: Envelope, vector: dict[str, Any]) -> None:
    assert one.format == tuple(vector["format"])
    assert (one.address, one.content_type, one.author) == (vector["address"], vector["content_type"], vector["author"])
    assert (one.version, one.deleted) == (int(vector["version"]), vector["deleted"])
    assert [digest.hex() for digest in one.parents] == vector["parents"]
    assert [list(pair) for pair in one.meta.items()] == vector["meta"], "and in that order"
    assert one.content_size == vector["content_size"]
    for name in ("content", "content_digest", "header", "digest", "signature", "encoded"):
        assert getattr(one, name).hex() == vector[name], name
    assert one.key.decode() == vector["key"]
    assert one.notice.encoded.hex() == vector["notice"]


# -- the vectors ----------------------------------------------------------------------------------------------------


@named(VECTORS["envelopes"] + VECTORS["kept"])
def test_golden_envelopes_are_read(vector: dict[str, Any]) -> None:
    one, notice = decode(bytes.fromhex(vector["encoded"])), decode_notice(bytes.fromhex(vector["notice"]))
    assert_golden(one, vector)
    assert_golden(notice.with_content(one.content), vector)
    verify(one)
    verify(notice)


@named(VECTORS["envelopes"])
def test_golden_envelopes_are_made(vector: dict[str, Any]) -> None:
    one = seal(
        PrivateKey.from_seed(bytes.fromhex(vector["seed"])),
        address=vector["address"], content=bytes.fromhex(vector["content"]), content_type=vector["content_type"],
        version=int(vector["version"]), parents=reversed([bytes.fromhex(digest) for digest in vector["parents"]]),
        meta=dict(vector["meta"]), deleted=vector["deleted"],
    )  # fmt: skip
    assert_golden(one, vector)


@named(VECTORS["envelopes"] + VECTORS["kept"])
def test_golden_envelopes_hold_for_other_libraries(vector: dict[str, Any]) -> None:
    encoded, notice = bytes.fromhex(vector["encoded"]), bytes.fromhex(vector["notice"])
    header, signature, content = msgpack.unpackb(encoded)
    assert msgpack.packb([header, signature, content]) == encoded
    assert msgpack.packb([header, signature]) == notice
    assert sha256(header).hexdigest() == vector["digest"]
    assert msgpack.unpackb(header)[2:4] == [sha256(content).digest(), len(content)]
    theirs = Ed25519PublicKey.from_public_bytes(keys.public_key(vector["author"]))
    theirs.verify(signature, b"bzzz/envelope/2\n" + header)
    with pytest.raises(InvalidSignature):
        theirs.verify(signature, header)


@named(VECTORS["refused"])
def test_golden_refusals(vector: dict[str, str]) -> None:
    with pytest.raises(BzzzError) as refused:
        decode(bytes.fromhex(vector["encoded"]))
    assert type(refused.value) is getattr(errors, vector["error"])
    assert (refused.value.code, refused.value.details["field"]) == (vector["code"], vector["field"])


@named(VECTORS["refused_notices"])
def test_golden_refusals_of_notices(vector: dict[str, str]) -> None:
    with pytest.raises(BzzzError) as refused:
        decode_notice(bytes.fromhex(vector["encoded"]))
    assert type(refused.value) is getattr(errors, vector["error"])
    assert (refused.value.code, refused.value.details["field"]) == (vector["code"], vector["field"])


@named(VECTORS["forged"])
def test_golden_forgeries(vector: dict[str, str]) -> None:
    for forged in (decode(bytes.fromhex(vector["encoded"])), decode_notice(bytes.fromhex(vector["notice"]))):
        with pytest.raises(BadSignature):
            verify(forged)


def test_the_golden_order() -> None:
    envelopes = {vector["name"]: decode(bytes.fromhex(vector["encoded"])) for vector in VECTORS["envelopes"]}
    assert sorted(envelopes, key=lambda name: order_key(envelopes[name])) == VECTORS["order"]


# -- seal and decode ------------------------------------------------------------------------------------------------

digests = st.binary(min_size=32, max_size=32)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
fields = st.fixed_dictionaries(
    {
        "address": st.sampled_from([ADDRESS, "ucxl://a:b@c:d/*^", "ucxl://a:b@c:d/*^/caf%C3%A9"]),
        "content_type": st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=255),
        "version": st.integers(1, 2**64 - 1),
        "parents": st.lists(digests, max_size=20),
        "meta": st.dictionaries(texts.filter(bool), texts, max_size=20),
    },
)
envelopes = st.one_of(
    st.builds(lambda values, content: sealed(content=content, **values), fields, st.binary(max_size=300)),
    st.builds(lambda values: sealed(OTHER, content=b"", deleted=True, **values), fields),
)


@given(envelopes)
def test_decode_is_the_inverse_of_seal(one: Envelope) -> None:
    again = decode(one.encoded)
    for field in dataclasses.fields(Envelope):
        assert getattr(again, field.name) == getattr(one, field.name), field.name
    assert list(again.meta) == list(one.meta)
    assert list(again.parents) == sorted(set(again.parents))
    verify(again)


@given(envelopes, st.data())
def test_no_bit_can_be_changed_unseen(one: Envelope, data: st.DataObject) -> None:
    """A flipped bit anywhere, in the signature too, is refused or found to be forged."""
    changed = bytearray(one.encoded)
    bit = data.draw(st.integers(0, 8 * len(changed) - 1))
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BzzzError):
        verify(decode(bytes(changed)))


@given(envelopes, st.data())
def test_no_bit_of_a_notice_can_be_changed_unseen(one: Envelope, data: st.DataObject) -> None:
    changed = bytearray(one.notice.encoded)
    bit = data.draw(st.integers(0, 8 * len(changed) - 1))
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BzzzError):
        verify(decode_notice(bytes(changed)))


@given(envelopes)
def test_a_notice_and_its_content_are_the_envelope(one: Envelope) -> None:
    notice = decode_notice(one.notice.encoded)
    verify(notice)
    for field in dataclasses.fields(Notice):
        assert getattr(notice, field.name) == getattr(one, field.name), field.name
    assert (notice.reissues, notice.encoded_size) == (one.reissues, len(one.encoded))
    assert order_key(notice) == order_key(one)
    assert notice.with_content(one.content).encoded == one.encoded
    assert notice != one, "one has the content, the other has not"
    for content in (one.content + b"x", one.content[:-1] + b"\0", bytes(len(one.content))):
        if content != one.content:
            with pytest.raises(InvalidPayload):
                notice.with_content(content)


@given(envelopes, st.data())
def test_any_part_of_an_envelope_alone_is_refused(one: Envelope, data: st.DataObject) -> None:
    length = data.draw(st.integers(0, len(one.encoded) - 1))
    with pytest.raises(InvalidPayload):
        decode(one.encoded[:length])


msgpacked = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.binary(max_size=64) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts | st.integers(0, 9), inner, max_size=4),
    max_leaves=10,
)


@given(st.binary(max_size=400) | msgpacked.map(msgpack.packb))
def test_any_bytes_are_an_envelope_or_refused(data: bytes) -> None:
    with pytest.raises((InvalidPayload, InvalidAddress, TooLarge, UnsupportedFormat)):
        decode(data)


@given(st.integers(0, 9), msgpacked)
def test_any_value_in_any_field_is_taken_or_refused(place: int, value: Any) -> None:
    parts = fields_of(sealed())
    parts[place] = value
    taken = taken_or_refused(signed(*parts))
    if isinstance(taken, Envelope):
        verify(taken)
        return
    assert taken.message.isprintable()
    assert len(taken.message) < 1000
    msgpack.packb([taken.message, dict(taken.details)])  # it must cross the wire


def taken_or_refused(data: bytes) -> Envelope | BzzzError:
    try:
        return decode(data)
    except (InvalidPayload, InvalidAddress, TooLarge, UnsupportedFormat) as refused:
        return refused


@pytest.mark.parametrize("value", [None, 7, "text", [1], {}], ids=ascii)
def test_what_is_not_bytes_is_refused(value: Any) -> None:
    with pytest.raises(InvalidPayload):
        decode(value)


def test_bytearrays_and_memoryviews_are_decoded_and_kept_as_bytes() -> None:
    one = sealed()
    for data in (bytearray(one.encoded), memoryview(one.encoded)):
        again = decode(data)  # type: ignore[arg-type]
        assert type(again.encoded) is bytes
        assert again == one


@pytest.mark.parametrize("depth", [100, 400, 1000, 5000, 200_000])
@pytest.mark.parametrize("nest", [b"\x91", b"\x81\xa1a", b"\x81\x91", b"\xdc\x04\x00", b"\xdd\x00\x00\x04\x00"])
def test_nesting_exhausts_neither_stack_nor_memory(nest: bytes, depth: int) -> None:
    nested = nest * depth + b"\xc0"
    for data in (nested, signed_header(nested), signed_header(b"\x9a\x92\x02\x00" + nested + b"\xc0" * 9)):
        with pytest.raises((InvalidPayload, InvalidAddress, TooLarge)):
            decode(data)


def test_a_head_of_five_bytes_does_not_reserve_megabytes() -> None:
    """Each level claims a million elements; reserving memory for them would take eight megabytes."""
    head = b"\xdd\x00\x0f\xff\x00" * 20
    hostile = signed_header(head + bytes(HEADER_BYTES_MAX - 100))
    tracemalloc.start()
    try:
        for data in (head + bytes(ENCODED_BYTES_MAX - 100), hostile):
            with pytest.raises(InvalidPayload):
                decode(data)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 4 * ENCODED_BYTES_MAX


def test_names_too_deep_to_compare_are_refused() -> None:
    name = b"\x91" * 1000 + b"\xc0"
    with pytest.raises(InvalidPayload):
        decode(signed_header(b"\x92\x92\x02\x00" + b"\x82" + (name + b"\xc0") * 2))


def test_digest_and_signature_do_not_depend_on_the_msgpack_form_of_a_number() -> None:
    """Another encoder may write numbers longer than necessary: the bytes that it signed count."""
    short = msgpack.packb(fields_of(sealed(version=5)))
    long = short.replace(b"\x05\x90", b"\xcd\x00\x05\x90", 1)
    one = decode(signed_header(long))
    verify(one)
    assert one.version == 5
    assert one.header == long
    assert one != sealed(version=5), "other bytes, another version"


def test_the_encoded_size_is_limited_in_both_directions() -> None:
    overhead = len(sealed(content=b"x" * 70_000).encoded) - 70_000
    largest = sealed(content=b"x" * (ENCODED_BYTES_MAX - overhead))
    assert len(largest.encoded) == ENCODED_BYTES_MAX
    assert decode(largest.encoded) == largest
    with pytest.raises(TooLarge) as refused:
        sealed(content=b"x" * (ENCODED_BYTES_MAX - overhead + 1))
    assert refused.value.details["size_bytes"] == ENCODED_BYTES_MAX + 1
    with pytest.raises(TooLarge):
        decode(bytes(ENCODED_BYTES_MAX + 1))


def test_an_encoded_envelope_is_as_long_as_its_notice_says() -> None:
    for size in (0, 1, 255, 256, 65_535, 65_536, 900_000):
        for meta in ({}, {"a": "x" * 300}):
            one = sealed(content=bytes(size), meta=meta)
            assert one.encoded_size == one.notice.encoded_size == len(one.encoded)


def test_the_longest_header_of_known_fields_is_taken() -> None:
    address = "ucxl://a:b@c:d/*^/" + "/".join([*["x" * 125] * 7, "x" * 124])
    one = sealed(
        address=address, content_type="x" * 255, parents=[n.to_bytes(32, "big") for n in range(256)],
        meta={f"{n:03}": "x" * 253 for n in range(64)}, version=2**64 - 1, content=bytes(1_000_000),
    )  # fmt: skip
    assert len(address) == ADDRESS_BYTES_MAX
    assert decode_notice(one.notice.encoded) == one.notice
    assert len(one.header) < HEADER_BYTES_MAX < len(one.header) + 8 * 1024, "with room for fields of a later minor"
    with pytest.raises(InvalidPayload):
        decode_notice(bytes(NOTICE_BYTES_MAX + 1))


def test_meta_and_parents_are_taken_up_to_their_limits() -> None:
    sealed(meta={f"{n:03}": "x" * 253 for n in range(64)})
    sealed(meta={"n": "é" * 8191 + "x"})
    sealed(parents=[n.to_bytes(32, "big") for n in range(256)])
    with pytest.raises(InvalidPayload, match="16385"):
        sealed(meta={"n": "é" * 8192})


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"address": "ucxl://a:b@c:d"}, InvalidAddress),
        ({"address": "ucxl://a:b@c:d/~~1"}, InvalidAddress),
        ({"address": "ucxl://any:b@c:d/*^"}, InvalidAddress),
        ({"address": "ucxl://a:b@c:\ud800/*^"}, InvalidAddress),
        ({"address": None}, InvalidAddress),
        ({"content": "text"}, InvalidPayload),
        ({"content": object}, InvalidPayload),
        ({"content_type": "\ud800"}, InvalidPayload),
        ({"content_type": ""}, InvalidPayload),
        ({"version": 0}, InvalidPayload),
        ({"version": 1 << 64}, InvalidPayload),
        ({"version": -1}, InvalidPayload),
        ({"parents": [b"short"]}, InvalidPayload),
        ({"parents": [b"x" * 32, None]}, InvalidPayload),
        ({"parents": 5}, InvalidPayload),
        ({"meta": {"a": 1}}, InvalidPayload),
        ({"meta": {"": "a"}}, InvalidPayload),
        ({"meta": {"a": "\udfff"}}, InvalidPayload),
        ({"meta": 5}, InvalidPayload),
        ({"deleted": 1}, InvalidPayload),
        ({"deleted": True}, InvalidPayload),
    ],
    ids=ascii,
)
def test_nothing_is_sealed_that_would_be_refused_elsewhere(changes: dict[str, Any], error: type[BzzzError]) -> None:
    with pytest.raises(error):
        sealed(**changes)


def test_a_tombstone_is_a_version_without_content() -> None:
    tombstone = sealed(content=b"", deleted=True)
    assert decode(tombstone.encoded).deleted
    verify(tombstone)
    assert tombstone != sealed(content=b""), "an empty thing is not a deleted one"


# -- formats --------------------------------------------------------------------------------------------------------


@given(st.integers(1, 300), st.lists(msgpacked, max_size=20))
def test_fields_of_a_newer_minor_are_kept_and_covered_by_the_signature(minor: int, unknown: list[Any]) -> None:
    header: bytes = msgpack.packb([[2, minor], *fields_of(sealed())[1:], *unknown])
    encoded = signed_header(header)
    one = decode(encoded)
    verify(one)
    assert (one.format, one.encoded, one.header) == ((2, minor), encoded, header)
    assert one.digest == sha256(header).digest()
    assert decode_notice(one.notice.encoded).header == header


@given(st.integers(0, 2**32).filter(lambda major: major != 2), st.integers(0, 9), st.lists(msgpacked, max_size=12))
def test_another_major_is_refused_by_name_whatever_it_looks_like(major: int, minor: int, rest: list[Any]) -> None:
    fields = msgpack.packb([[major, minor], *rest])
    for data in (fields, signed_header(fields)):
        with pytest.raises(UnsupportedFormat, match=rf"{major}\.{minor}"):
            decode(data)
    with pytest.raises(UnsupportedFormat, match=rf"{major}\.{minor}"):
        decode_notice(fields)


# -- the value ------------------------------------------------------------------------------------------------------


def test_an_envelope_cannot_be_changed() -> None:
    one = sealed(meta={"a": "b"})
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.content = b"y"  # type: ignore[misc]
    with pytest.raises(TypeError):
        one.meta["a"] = "c"  # type: ignore[index]


def test_what_was_handed_to_seal_may_change_afterwards() -> None:
    meta, parents = {"a": "b"}, [bytes(32)]
    one = sealed(meta=meta, parents=parents)
    meta["a"] = "c"
    parents.clear()
    assert (one.meta, one.parents) == ({"a": "b"}, (bytes(32),))


def test_envelopes_are_equal_when_their_digests_are() -> None:
    one = sealed()
    resigned = one.encoded.replace(one.signature, bytes(64))
    assert decode(resigned) == one
    assert {one, decode(resigned), copy.copy(one)} == {one}
    assert one != sealed(content=b"y")
    assert one != one.digest


def test_a_megabyte_is_not_printed() -> None:
    assert len(repr(sealed(content=b"x" * 500_000))) < 400


# -- the total order ------------------------------------------------------------------------------------------------


class Place(NamedTuple):
    version: int
    author: str
    digest: bytes


AUTHORS = [KEY.peer_id, OTHER.peer_id]
places = st.builds(
    Place,
    st.integers(1, 3), st.sampled_from(AUTHORS), st.sampled_from([bytes(32), b"\x01" * 32, b"\xff" * 32]),
)  # fmt: skip


def newer(item: Ordered, other: Ordered) -> bool:
    return order_key(item) > order_key(other)


@given(places, places, places)
def test_the_order_is_total(a: Place, b: Place, c: Place) -> None:
    assert newer(a, b) + newer(b, a) + (a == b) == 1, "exactly one of them holds"
    assert not newer(a, b) or not newer(b, c) or newer(a, c)


@given(st.lists(places), st.randoms(use_true_random=False))
def test_every_replica_sorts_alike(held: list[Place], rng: Any) -> None:
    shuffled = list(held)
    rng.shuffle(shuffled)
    assert sorted(shuffled, key=order_key) == sorted(held, key=order_key)


def test_version_comes_before_author_and_author_before_digest() -> None:
    smaller, greater = sorted([KEY, OTHER], key=lambda key: key.peer_id)
    assert newer(sealed(smaller, version=2), sealed(greater, version=1))
    assert newer(sealed(greater, version=1), sealed(smaller, version=1))
    one, other = sealed(content=b"one"), sealed(content=b"other")
    assert newer(one, other) == (one.digest > other.digest)
    assert envelope.order_key(one) == (one.version, one.author, one.digest)
