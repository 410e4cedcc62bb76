"""CIDs: the vectors, and that one content has one CID."""

from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols import cid
from protocols.errors import InvalidPayload
from tests.unit.vectors import load

VECTORS = load("cids")


@pytest.mark.parametrize("vector", VECTORS["cids"], ids=lambda vector: vector["name"])
def test_content_has_its_golden_cid(vector: dict[str, Any]) -> None:
    digest = sha256(bytes.fromhex(vector["content"])).digest()
    assert digest.hex() == vector["digest"]
    assert cid.encode(digest) == vector["cid"]
    assert cid.decode(vector["cid"]) == digest


@pytest.mark.parametrize("vector", VECTORS["refused"], ids=lambda vector: vector["name"])
def test_what_is_no_cid_of_content_is_refused_with_what_it_is(vector: dict[str, str]) -> None:
    with pytest.raises(InvalidPayload) as raised:
        cid.decode(vector["cid"])
    assert vector["because"] in raised.value.message
    assert raised.value.details["field"] == "cid"
    assert raised.value.message.isprintable()


@given(st.binary(min_size=32, max_size=32))
def test_every_digest_comes_back(digest: bytes) -> None:
    text = cid.encode(digest)
    assert len(text) == cid.CHARS
    assert text.startswith("bafkrei")
    assert cid.decode(text) == digest


@given(st.one_of(st.text(max_size=200), st.text("bafkrei234567", max_size=70)))
def test_any_text_is_a_cid_or_refused(text: str) -> None:
    try:
        digest = cid.decode(text)
    except InvalidPayload as error:
        assert error.message.isprintable()
    else:
        assert cid.encode(digest) == text


@given(st.binary(min_size=32, max_size=32), st.integers(0, cid.CHARS - 1), st.sampled_from("abcdefgz234567ABZ1=. \n"))
def test_a_changed_character_never_names_the_same_content(digest: bytes, at: int, character: str) -> None:
    text = cid.encode(digest)
    changed = text[:at] + character + text[at + 1 :]
    try:
        found = cid.decode(changed)
    except InvalidPayload:
        return
    assert (found == digest) is (changed == text)
