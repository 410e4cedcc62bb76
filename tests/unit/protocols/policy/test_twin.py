"""Two nodes with one identity: exactly one backs off, and comes back when the other one is gone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.policy.twin import FORGET_SECONDS, KEPT_MAX, REPORTED_SECONDS, TwinDetector

A, B = b"a" * 32, b"b" * 32


def test_a_connection_to_this_process_is_no_twin() -> None:
    detector = TwinDetector(A)
    assert not detector.met(A, "/ip4/127.0.0.1/tcp/1", 0.0, dialled=True)
    assert not detector.is_known()
    assert detector.in_words() == ""


def test_the_one_that_dialled_backs_off_and_both_say_where_the_other_is() -> None:
    first, second = TwinDetector(A), TwinDetector(B)
    assert second.met(A, "/ip4/192.0.2.1/tcp/4001", 0.0, dialled=True)
    assert first.met(B, "/ip4/192.0.2.2/tcp/50000", 0.0, dialled=False)
    assert (first.is_backing_off, second.is_backing_off) == (False, True)
    assert "at /ip4/192.0.2.2/tcp/50000: that one stays out of the swarm" in first.in_words()
    assert "at /ip4/192.0.2.1/tcp/4001: this one has no peers until that one ends" in second.in_words()
    assert (first.addresses(), second.addresses()) == ((), ("/ip4/192.0.2.1/tcp/4001",))


@pytest.mark.parametrize(("own", "other"), [(A, B), (B, A)])
def test_of_two_that_dialled_each_other_the_one_with_the_greater_key_backs_off(own: bytes, other: bytes) -> None:
    detector = TwinDetector(own)
    detector.met(other, "x", 0.0, dialled=True)
    detector.met(other, "y", 0.0, dialled=False)
    assert detector.is_backing_off is (own > other)


def test_a_twin_that_was_not_met_for_a_while_is_gone() -> None:
    detector = TwinDetector(B)
    detector.met(A, "x", 0.0, dialled=True)
    detector.met(A, "x", 10.0, dialled=True)
    detector.forget(10.0 + FORGET_SECONDS - 0.1)
    assert detector.is_backing_off
    detector.forget(10.0 + FORGET_SECONDS)
    assert not detector.is_known()


@given(st.lists(st.sampled_from(["first dials", "second dials"]), min_size=1, max_size=6))
def test_exactly_one_of_two_backs_off_whichever_side_dials(dials: list[str]) -> None:
    first, second = TwinDetector(A), TwinDetector(B)
    for dial in dials:
        first.met(B, "b", 0.0, dialled=dial == "first dials")
        second.met(A, "a", 0.0, dialled=dial == "second dials")
        assert first.is_backing_off is not second.is_backing_off


def test_a_twin_that_only_others_see_is_said_by_both_and_one_backs_off() -> None:
    first, second = TwinDetector(A), TwinDetector(B)
    first.reported("log of second", "/ip4/192.0.2.2/tcp/4001", 0.0, yields=False)
    second.reported("log of first", "", 0.0, yields=True)
    assert (first.is_backing_off, second.is_backing_off) == (False, True)
    assert "at /ip4/192.0.2.2/tcp/4001: that one stays out of the swarm" in first.in_words()
    assert "at an unknown address: this one has no peers until that one ends" in second.in_words()
    assert second.addresses() == (), "nothing to dial"
    second.forget(REPORTED_SECONDS - 0.1)
    assert second.is_backing_off
    second.forget(REPORTED_SECONDS)
    assert not second.is_known()


def test_a_twin_that_was_met_counts_more_than_one_that_was_reported() -> None:
    detector = TwinDetector(A)
    detector.reported("log", "x", 0.0, yields=True)
    detector.met(B, "y", 0.0, dialled=False)
    detector.reported("log", "x", 0.0, yields=True)
    assert not detector.is_backing_off
    assert "at y:" in detector.in_words()


def test_reports_are_bounded() -> None:
    detector = TwinDetector(A)
    for number in range(3 * KEPT_MAX):
        detector.reported(f"log {number}", f"address {number};", 0.0, yields=False)
    assert detector.in_words().count("address") <= KEPT_MAX + 1
