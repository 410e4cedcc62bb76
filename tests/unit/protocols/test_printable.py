"""Text that comes from others is shown printable."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.printable import printable, printable_lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("node-7 größer 節点", "node-7 größer 節点"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("one\r\ntwo\ttab", r"one\r\ntwo\ttab"),
        ("\x9b2J\x7f\x00", r"\x9b2J\x7f\x00"),
        ("abc\u202egnp.exe", r"abc\u202egnp.exe"),
        ("\udc80", r"\udc80"),
        ("line\u2028break", r"line\u2028break"),
    ],
)
def test_unprintable_characters_are_shown_as_escapes(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_lines_keep_their_breaks_and_tabs_and_nothing_else() -> None:
    assert printable_lines("a\n\tb\r\x1b[0m") == "a\n\tb" + r"\r\x1b[0m"


@given(st.text())
def test_what_is_shown_is_printable_and_can_be_encoded(text: str) -> None:
    assert printable(text).isprintable()
    assert printable(text).encode().decode() == printable(text)
    assert printable(printable(text)) == printable(text)
