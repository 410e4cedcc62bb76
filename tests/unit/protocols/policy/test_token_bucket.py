"""A burst is free, and after it there is a rate."""

from protocols.policy.token_bucket import TokenBucket


def test_a_burst_is_free_and_what_is_more_has_to_wait() -> None:
    bucket = TokenBucket(rate=10.0, burst=5.0, now=0.0)
    assert [bucket.take(1, 0.0) for _ in range(7)] == [0.0, 0.0, 0.0, 0.0, 0.0, 0.1, 0.2]


def test_what_was_taken_flows_back_and_never_more_than_the_burst() -> None:
    bucket = TokenBucket(rate=10.0, burst=5.0, now=0.0)
    bucket.take(10, 0.0)
    assert not bucket.is_full(0.9)
    assert bucket.is_full(1.0)
    assert bucket.take(5, 100.0) == 0.0
    assert bucket.take(1, 100.0) == 0.1
