"""`traceparent` headers, by the examples and rules of W3C Trace Context."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.traceparent import Traceparent, is_trace, parse

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_the_specifications_own_example_is_read_and_written_again() -> None:
    header = f"00-{TRACE}-{SPAN}-01"
    assert parse(header) == Traceparent(TRACE, SPAN, "01")
    assert str(parse(header)) == header


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    assert parse(f"cc-{TRACE}-{SPAN}-09-what-the-future-will-be-like") == Traceparent(TRACE, SPAN, "01")
    assert parse(f"cc-{TRACE}-{SPAN}-08") == Traceparent(TRACE, SPAN, "00")


@pytest.mark.parametrize(
    "header",
    [
        "",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"cc-{TRACE}-{SPAN}-01more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}",
    ],
)
def test_what_breaks_the_rules_is_as_good_as_no_header(header: str) -> None:
    assert parse(header) is None


@given(st.text())
def test_no_header_is_an_error(header: str) -> None:
    found = parse(header)
    assert found is None or parse(str(found)) == found


def test_a_trace_that_could_forge_a_line_of_a_log_is_none() -> None:
    assert is_trace(TRACE)
    assert not any(is_trace(text) for text in ("", "a\nb", "a b", "a,b", "a" * 65, "a=b", "\x1b[0m"))
