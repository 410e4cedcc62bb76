"""Flags: the backend in force, the keys in the rollout, and how a change of flags is read or refused."""

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.config.changes import EXPIRES_MS, FlagChange, read_change
from node.config.flags import NAMES, Flags, Force, Override, check, notes, share_of
from node.config.settings import Settings
from protocols.errors import InvalidPayload
from protocols.ucxl import key_of

KEYS = [key_of(f"ucxl://a:r@p:t/*^/{number}") for number in range(2000)]


def override(force: str = "mock") -> Override:
    return Override(force=Force(force), reason="why", author="ada", since_ms=1, expires_ms=2)


def read(**change: object) -> FlagChange:
    return read_change(change, author="caller")


def refused(**change: object) -> InvalidPayload:
    with pytest.raises(InvalidPayload) as caught:
        read(**change)
    return caught.value


# -- in force ---------------------------------------------------------------------------------------------------------


def test_the_flags_are_settings_of_the_same_name_and_default() -> None:
    assert Flags.of(Settings()) == Flags()


@pytest.mark.parametrize(
    ("flags", "in_force", "has_fallback"),
    [
        (Flags(), "hybrid", True),
        (Flags(fallback_on_error=False), "hybrid", False),
        (Flags(backend="real"), "real", False),
        (Flags(backend="real", fallback_on_error=False), "real", False),
        (Flags(backend="real", fallback_on_error=True), "hybrid", True),
        (Flags(dht_enabled=False), "mock", True),
        (Flags(backend="real", override=override("mock")), "mock", True),
        (Flags(backend="real", override=override("open")), "real", False),
    ],
)
def test_what_is_in_force_follows_from_backend_fallback_and_override(
    flags: Flags, in_force: str, has_fallback: bool
) -> None:
    assert (flags.in_force, flags.has_fallback) == (in_force, has_fallback)


def test_the_rollout_takes_its_share_and_only_ever_adds_keys() -> None:
    let_through: set[bytes] = set()
    for percent in (0, 1, 10, 50, 90, 99.9, 100):
        now = {key for key in KEYS if Flags(rollout_percent=percent).lets_through(key)}
        assert now >= let_through
        assert len(now) / len(KEYS) == pytest.approx(percent / 100, abs=0.04)
        let_through = now
    assert len(let_through) == len(KEYS)


def test_a_key_has_the_same_share_for_ever() -> None:
    assert share_of(KEYS[0]) == pytest.approx(60.642358, abs=1e-6)
    assert share_of(KEYS[1]) == pytest.approx(60.467934, abs=1e-6)


@given(st.binary(max_size=60))
def test_a_share_is_a_percentage_below_a_hundred(key: bytes) -> None:
    assert 0.0 <= share_of(key) < 100.0


def test_keys_are_held_back_by_mock_by_the_rollout_and_while_sync_is_off() -> None:
    key = min(KEYS, key=share_of)
    assert not Flags().holds_back(key)
    assert Flags(backend="mock").holds_back(key)
    assert Flags(sync_enabled=False).holds_back(key)
    assert not Flags(rollout_percent=50).holds_back(key)
    assert Flags(rollout_percent=50).holds_back(max(KEYS, key=share_of))
    assert not Flags(override=override("open")).holds_back(key)


def test_notes_say_what_the_values_do_not_show_at_first_sight() -> None:
    assert notes(Flags()) == []
    assert "is hybrid" in notes(Flags(backend="real", fallback_on_error=True))[0]
    assert "50 %" in notes(Flags(rollout_percent=50))[0]
    assert "waits" in notes(Flags(dht_enabled=False))[0]
    assert "none is delivered" in notes(Flags(sync_enabled=False))[0]
    assert "no node to ask" in notes(Flags(backend="mock", use_distributed_resolver=True))[0]
    assert notes(Flags(use_distributed_resolver=True)) == []
    assert "forced mock by ada: why" in notes(Flags(override=override()))


def test_a_quorum_over_the_replication_is_refused_when_it_was_set_here() -> None:
    ground = Flags()
    check(ground, ground, replication=1)
    with pytest.raises(InvalidPayload, match="never reached with replication 2"):
        check(replace(ground, write_quorum=3), ground, replication=2)


# -- changes ----------------------------------------------------------------------------------------------------------


def test_a_change_is_read_by_names_aliases_and_units() -> None:
    change = read(
        backend="mock", **{"dht.fallback.threshold_errors": 5}, deadline_ms="1.5s", real_deadline_ms=700,
        rollout_percent=25, fallback_on_error=None, cache_ttl="5m", reason=" trying ", author="ada",
    )  # fmt: skip
    assert change.values == {
        "backend": "mock", "threshold_errors": 5, "deadline_ms": 1500, "real_deadline_ms": 700,
        "rollout_percent": 25.0, "fallback_on_error": None, "cache_ttl_ms": 300_000,
    }  # fmt: skip
    assert (change.reason, change.author) == ("trying", "ada")
    assert read(backend="real").author == "caller"


@pytest.mark.parametrize(
    ("change", "field", "part"),
    [
        ({"bakend": "mock"}, "bakend", "did you mean backend?"),
        ({"data_dir": "/tmp"}, "data_dir", "no flag 'data_dir'"),
        ({"overide": "mock", "reason": "x"}, "overide", "did you mean override?"),
        ({"backend": "hybird"}, "backend", "'hybird' is not one of mock, real, hybrid"),
        ({"backend": 1}, "backend", "must be text"),
        ({"backend": ["mock"]}, "backend", "must be text"),
        ({"fallback_on_error": "true"}, "fallback_on_error", "must be true or false"),
        ({"fallback_on_error": 1}, "fallback_on_error", "must be true or false"),
        ({"threshold_errors": True}, "threshold_errors", "must be a whole number"),
        ({"threshold_errors": 2.5}, "threshold_errors", "must be a whole number"),
        ({"threshold_errors": "3"}, "threshold_errors", "must be a whole number"),
        ({"threshold_errors": 0}, "threshold_errors", "out of range: 1 to 1000"),
        ({"deadline_ms": 0}, "deadline_ms", "out of range"),
        ({"deadline_ms": True}, "deadline_ms", "must be milliseconds"),
        ({"deadline_ms": "soon"}, "deadline_ms", "not a duration"),
        ({"deadline_ms": {}}, "deadline_ms", "must be milliseconds"),
        ({"rollout_percent": 100.1}, "rollout_percent", "0 to 100 percent"),
        ({"rollout_percent": -1}, "rollout_percent", "0 to 100 percent"),
        ({"rollout_percent": math.nan}, "rollout_percent", "0 to 100 percent"),
        ({"rollout_percent": "25"}, "rollout_percent", "must be a number"),
        ({"backend": "mock", "dht_backend": "real"}, "backend", "set twice"),
        ({"override": "mock"}, "reason", "an override needs a reason"),
        ({"override": "mock", "reason": "  "}, "reason", "an override needs a reason"),
        ({"override": "shut", "reason": "x"}, "override", "mock, open, closed, or null"),
        ({"override": {"force": "mock"}, "reason": "x"}, "override", "mock, open, closed, or null"),
        ({"override": "mock", "reason": "x", "expires_in": "31d"}, "expires_in", "out of range"),
        ({"override": "mock", "reason": "x", "expires_in": "0s"}, "expires_in", "out of range"),
        ({"override": "mock", "reason": "x", "expires_in": 5}, "expires_in", "5 has no unit; write 5s or 5ms"),
        ({"override": "mock", "reason": "x", "expires_in": "5"}, "expires_in", "5 has no unit; write 5s or 5ms"),
        ({"override": "mock", "reason": "x", "expires_in": f"{'9' * 400}d"}, "expires_in", "out of range"),
        ({"cache_ttl": 300}, "cache_ttl_ms", "300 has no unit; write 300s or 300ms"),
        ({"deadline_ms": f"{'9' * 400}d"}, "deadline_ms", "out of range"),
        ({"override": "mock", "reason": "x", "expires_in": True}, "expires_in", "must be like 30m"),
        ({"backend": "mock", "expires_in": "1m"}, "expires_in", "for an override alone"),
        ({"backend": "mock", "reason": 7}, "reason", "one line"),
        ({"backend": "mock", "reason": "a\nb"}, "reason", "one line"),
        ({"backend": "mock", "reason": "x" * 501}, "reason", "one line"),
        ({"backend": "mock", "author": "\x1b[2J"}, "author", "one line"),
        ({"reason": "nothing else"}, "body", "names no flag"),
        ({}, "body", "names no flag"),
    ],
)  # fmt: skip
def test_a_change_that_is_wrong_is_refused_by_name_and_reason(change: dict[str, Any], field: str, part: str) -> None:
    error = refused(**change)
    assert error.details["field"] == field
    assert part in error.message
    assert len(str(error.details.get("provided", ""))) < 100


def test_an_override_has_a_reason_and_an_end() -> None:
    change = read(override="open", reason="works")
    assert (change.force, change.expires_in_ms, change.ends_override) == (Force.OPEN, EXPIRES_MS, False)
    assert read(override="mock", reason="x", expires_in="90s").expires_in_ms == 90_000
    assert read(override=None).ends_override


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*NAMES, "reason", "author", "override", "expires_in", "x"]), JSON, max_size=5))
def test_any_json_is_a_change_or_one_clear_refusal(data: dict[str, Any]) -> None:
    try:
        change = read_change(data, author="a")
    except InvalidPayload as error:
        assert error.details["field"]
    else:
        after = replace(Flags(), **{name: value for name, value in change.values.items() if value is not None})
        assert after.in_force in ("mock", "real", "hybrid")
