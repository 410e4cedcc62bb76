"""Network keys: the files of other programs, and the phrase by which a node joins."""

import contextlib
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import InvalidPayload
from protocols.network_key import Invitation, key_file, phrase, read_key_file, read_phrase

KEY = bytes(range(32))
HEAD = b"/key/swarm/psk/1.0.0/\n"


def test_a_key_file_is_that_of_the_specification() -> None:
    assert key_file(KEY).encode() == HEAD + b"/base16/\n" + KEY.hex().encode() + b"\n"
    assert read_key_file(key_file(KEY).encode()) == KEY


@pytest.mark.parametrize(
    "rest",
    [
        b"/base16/\n" + KEY.hex().encode(), b"/base16/\n" + KEY.hex().upper().encode() + b"\r\n",
        b"/base64/\n" + b64encode(KEY) + b"\n", b"/bin/\n" + KEY, b"/bin/\n" + KEY + b"\n",
    ],
)  # fmt: skip
def test_key_files_of_other_programs_are_read(rest: bytes) -> None:
    assert read_key_file(HEAD + rest) == KEY
    assert read_key_file((HEAD + rest).replace(b"/\n", b"/\r\n")) == KEY


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\n\n\n", HEAD, HEAD + b"/base16/\n", HEAD + b"/base16/\n" + b"00" * 31,
        HEAD + b"/base16/\n" + b"0g" * 32,
        HEAD + b"/base64/\n" + b64encode(KEY[1:]), HEAD + b"/base64/\n====", HEAD + b"/bin/\n" + bytes(31),
        HEAD + b"/bin/\n" + bytes(40), HEAD + b"/base32/\n" + KEY, b"/key/swarm/psk/2.0.0/\n/base16/\n" + b"00" * 32,
    ],
)  # fmt: skip
def test_what_is_no_key_file_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidPayload, match="not a network key file"):
        read_key_file(content)


@given(st.binary(max_size=80))
def test_any_bytes_are_a_key_file_or_refused(content: bytes) -> None:
    for each in (content, HEAD + content):
        with contextlib.suppress(InvalidPayload):
            assert len(read_key_file(each)) == 32


def test_a_phrase_says_the_network_and_its_key() -> None:
    text = phrase(Invitation("lab-1", KEY))
    assert text.startswith("bzzz-join:lab-1:")
    assert text.isascii()
    assert " " not in text
    assert read_phrase(f" {text}\n") == ("lab-1", KEY)


def test_each_slip_of_the_pen_in_a_phrase_is_found_and_not_repeated() -> None:
    text = phrase(Invitation("lab", KEY))
    for at in range(len(text)):
        for changed in (text[:at] + text[at + 1 :], text[:at] + ("x" if text[at] != "x" else "y") + text[at + 1 :]):
            with pytest.raises(InvalidPayload) as refused:
                read_phrase(changed)
            assert changed[-20:] not in refused.value.message


@given(st.text(max_size=60))
def test_any_text_is_a_phrase_or_refused(text: str) -> None:
    for each in (text, f"bzzz-join:a:{text}"):
        with contextlib.suppress(InvalidPayload):
            read_phrase(each)
