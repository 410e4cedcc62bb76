"""The limits are consistent, and a hit of a limit is always counted and logged once."""

import logging
from dataclasses import fields

import pytest
import trio
import trio.testing

from node.swarm.limit_counters import KEPT_MAX, LINES_PER_KIND_MAX, SILENCE_SECONDS, LimitCounters, LimitCounts
from node.swarm.limits import USUAL, SwarmLimits, within


@pytest.mark.parametrize("limits", [USUAL, within(USUAL, sockets=16), within(USUAL, sockets=64)])
def test_limits_fit_together(limits: SwarmLimits) -> None:
    assert limits.half_open_max < limits.connections_max
    assert limits.connections_per_peer_max <= min(limits.connections_per_subnet_max, limits.connections_max)
    assert limits.serving_bytes_max <= limits.serving_bytes_in_all_max
    assert limits.gossip_message_bytes_max < limits.gossip_rpc_bytes_max <= limits.gossip_queue_bytes_max
    assert all(getattr(limits, field.name) > 0 for field in fields(limits))


def test_connections_leave_descriptors_for_everything_else() -> None:
    assert within(USUAL, sockets=1024).connections_max == 768
    assert within(USUAL, sockets=1024).dialling_max == 256
    assert within(USUAL, sockets=1024).half_open_max == 384
    assert within(USUAL, sockets=1_000_000) == USUAL
    for sockets in range(4, 6000):
        limits = within(USUAL, sockets=sockets)
        assert limits.connections_max + limits.dialling_max <= sockets


async def test_a_kind_and_peer_have_one_line_a_minute_and_every_hit_counts(
    caplog: pytest.LogCaptureFixture, mock_clock: trio.testing.MockClock
) -> None:
    caplog.set_level(logging.WARNING)
    limit_counters = LimitCounters()
    for _ in range(3):
        for _ in range(100):
            limit_counters.hit("streams_slow", "a", "says nothing")
            limit_counters.hit("streams_slow", "b", "says nothing", times=2)
            limit_counters.hit("streams_refused", "a", "has too many")
        mock_clock.jump(SILENCE_SECONDS / 2)
    assert limit_counters.counts.streams_slow == 900
    assert limit_counters.counts.streams_refused == 300
    assert [record.getMessage() for record in caplog.records] == [
        "a: says nothing", "b: says nothing", "a: has too many",
        "a: says nothing (and 199 more like it before)",
        "b: says nothing (and 398 more like it before)",
        "a: has too many (and 199 more like it before)",
    ]  # fmt: skip


async def test_a_crowd_has_few_lines_and_is_not_remembered(
    caplog: pytest.LogCaptureFixture, mock_clock: trio.testing.MockClock
) -> None:
    caplog.set_level(logging.WARNING)
    limit_counters = LimitCounters()
    for minute in range(100):
        for number in range(200):
            limit_counters.hit("handshakes_failed", f"{minute}.{number}", "is a stranger")
        mock_clock.jump(SILENCE_SECONDS)
    assert len(caplog.records) == 100 * LINES_PER_KIND_MAX
    # private: nothing but memory depends on how many lines are remembered
    assert len(limit_counters._last_lines) <= min(KEPT_MAX, 3 * LINES_PER_KIND_MAX)


def test_every_counter_is_a_plain_number_that_begins_at_zero() -> None:
    counters = LimitCounts().as_dict()
    assert set(counters.values()) == {0}
    assert {type(value) for value in counters.values()} == {int}


async def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(AttributeError):
        LimitCounters().hit("no_such_thing", "a", "")
