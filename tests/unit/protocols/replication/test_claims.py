"""Claims: one feeder at a time sends a version, and none can keep it away."""

from protocols.replication import claims
from protocols.replication.claims import CLAIM_SECONDS, RIVAL_SECONDS, Claims

A, B = b"a" * 32, b"b" * 32


def test_the_first_feeder_that_asks_sends_and_others_wait() -> None:
    take = Claims().take
    assert take("n1", [A], 0.0) == ((A,), ())
    assert take("n2", [A, B], 1.0) == ((B,), (A,))
    assert take("n1", [A, B], 2.0) == ((A,), (B,))


def test_a_feeder_that_does_not_send_loses_its_claim() -> None:
    take = Claims().take
    take("n1", [A], 0.0)
    assert take("n2", [A], CLAIM_SECONDS - 1.0) == ((), (A,))
    assert take("n1", [A], CLAIM_SECONDS) == ((), (A,)), "another one wants it, and is next"
    assert take("n2", [A], CLAIM_SECONDS + 1.0) == ((A,), ())


def test_a_feeder_without_rivals_may_try_again_and_again() -> None:
    take = Claims().take
    for again in range(5):
        assert take("n1", [A], again * 2 * CLAIM_SECONDS) == ((A,), ())


def test_a_rival_that_never_comes_back_blocks_nothing_for_good() -> None:
    take = Claims().take
    take("n1", [A], 0.0)
    take("n2", [A], 1.0)
    assert take("n1", [A], CLAIM_SECONDS + RIVAL_SECONDS + 1.0) == ((A,), ())


def test_the_number_of_claims_is_bounded() -> None:
    held = Claims()
    for number in range(claims.CLAIMS_MAX + 10):
        held.take("n1", [number.to_bytes(32, "big")], 0.0)
    assert len(held) == claims.CLAIMS_MAX
