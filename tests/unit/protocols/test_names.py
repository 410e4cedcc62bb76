"""Names: which text can be the name of a node or a host."""

import contextlib
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.names import is_hostname, is_name


@pytest.mark.parametrize("text", ["a", "node-1.Lab_2", "n" * 64])
def test_a_name(text: str) -> None:
    assert is_name(text)


@pytest.mark.parametrize("text", ["", "n" * 65, "a b", "a\n", "\x1b[31m", "\u0661", "gr\u00fcn"])
def test_no_name(text: str) -> None:
    assert not is_name(text)


@pytest.mark.parametrize(
    "text", ["a", "localhost", "seed-1.example.org", "xn--gren-1na.example", "a" * 63, "7.example"]
)
def test_a_host_name(text: str) -> None:
    assert is_hostname(text)


@pytest.mark.parametrize(
    "text", ["", ".", "a..b", ".a", "a.", "-a", "a-", "a" * 64, "a." * 127, "gr\u00fcn.example", "a b", "a\n", "a\0"]
)
def test_no_host_name(text: str) -> None:
    assert not is_hostname(text)


@given(st.from_regex(r"[a-z0-9.-]{1,300}", fullmatch=True) | st.text("a.-", max_size=70))
def test_what_is_a_host_name_can_be_given_to_the_resolver_of_python(text: str) -> None:
    if is_hostname(text):
        text.encode("idna")
        with contextlib.suppress(OSError):
            socket.getaddrinfo(text, 1, flags=socket.AI_NUMERICHOST)  # not asked for: no network is needed
