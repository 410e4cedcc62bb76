"""The token bucket: a burst is free, and after it the rate limits."""

from protocols.policy.token_bucket import TokenBucket


def test_a_burst_is_free_and_the_rest_has_to_wait() -> None:
    bucket = TokenBucket(rate=10.0, burst=5.0, now=0.0)
    assert [bucket.take(1, 0.0) for _ in range(7)] == [0.0, 0.0, 0.0, 0.0, 0.0, 0.1, 0.2]


def test_tokens_flow_back_up_to_the_burst() -> None:
    bucket = TokenBucket(rate=10.0, burst=5.0, now=0.0)
    bucket.take(10, 0.0)
    assert not bucket.is_full(0.9)
    assert bucket.is_full(1.0)
    assert bucket.take(5, 100.0) == 0.0
    assert bucket.take(1, 100.0) == 0.1
