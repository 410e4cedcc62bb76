"""Health: the status that follows from facts, and the words of the reasons."""

from dataclasses import replace

import pytest

from protocols.policy.breaker import BreakerState
from protocols.policy.health import (
    DiscoveryFacts,
    ReplicaFacts,
    Status,
    StoreFacts,
    SwarmFacts,
    judge_clock,
    judge_discovery,
    judge_replicas,
    judge_store,
    judge_swarm,
    worst,
)

GOOD = SwarmFacts(
    backend="hybrid",
    members=4,
    reachable=4,
    suspects=0,
    breaker=BreakerState.CLOSED,
    breaker_why="",
    clock_offsets_ms=(),
)
KEPT = StoreFacts(failure="", pending=0, refused=0)


def test_a_swarm_in_which_everything_is_well_has_no_reasons() -> None:
    assert judge_swarm(GOOD) == (Status.HEALTHY, ())


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (replace(GOOD, reachable=0), "none of the 4 members known can be reached"),
        (replace(GOOD, suspects=2), "2 connected members do not answer"),
        (replace(GOOD, breaker=BreakerState.OPEN, breaker_why="3 unanswered"), "the breaker is open: 3 unanswered"),
        (replace(GOOD, breaker=BreakerState.HALF_OPEN, breaker_why="a frame"), "the breaker is half-open: a frame"),
        (replace(GOOD, members=0, reachable=0), "no other member of the swarm is known yet: what is written is kept"),
        (replace(GOOD, clock_offsets_ms=(20_000.0,)), "the clocks of 1 of 1 members differ"),
    ],
)
def test_hybrid_is_degraded_and_says_why(facts: SwarmFacts, reason: str) -> None:
    status, reasons = judge_swarm(facts)
    assert status is Status.DEGRADED
    assert len(reasons) == 1
    assert reasons[0].startswith(reason)


@pytest.mark.parametrize("backend", ["hybrid", "real", "mock"])
def test_another_node_with_the_same_identity_is_the_first_reason(backend: str) -> None:
    twin = "another node runs with this node's identity, at /ip4/192.0.2.7/tcp/4001"
    status, reasons = judge_swarm(replace(GOOD, backend=backend, twin=twin))
    assert (status, reasons[0]) == (Status.DEGRADED, twin)


@pytest.mark.parametrize(("members", "reason"), [(4, "none of the 4"), (0, "no other member of the swarm is known")])
def test_real_fails_when_no_member_can_be_reached(members: int, reason: str) -> None:
    status, reasons = judge_swarm(replace(GOOD, backend="real", members=members, reachable=0))
    assert status is Status.FAILED
    assert reasons[0].startswith(reason)
    assert "kept on this machine" not in reasons[0], "the real backend keeps nothing that the swarm did not take"


def test_real_with_a_reachable_member_is_degraded_at_most() -> None:
    assert judge_swarm(replace(GOOD, backend="real"))[0] is Status.HEALTHY
    assert judge_swarm(replace(GOOD, backend="real", suspects=3, reachable=1))[0] is Status.DEGRADED


def test_mock_does_not_mind_that_there_is_no_swarm() -> None:
    alone = replace(GOOD, backend="mock", members=0, reachable=0, breaker=BreakerState.OPEN)
    assert judge_swarm(alone) == (Status.HEALTHY, ())


@pytest.mark.parametrize(
    ("offsets_ms", "says"),
    [
        ((), ""),
        ((10_000.0, -10_000.0, 3.0), ""),
        # most of all clocks are on one side of ours: it is ours
        ((12_000.0, 13_000.0), "this node's clock is 13 s behind that of 2 of 2 members"),
        ((-12_000.0, -13_000.0, 5.0, -40_000.0), "this node's clock is 13 s ahead of that of 3 of 4 members"),
        ((11_000.0, 11_000.0, 11_000.0, -50_000.0), "this node's clock is 11 s behind that of 3 of 4 members"),
        # most agree with ours, or there is no majority: it is theirs
        ((30_000.0, 1.0, 2.0), "the clocks of 1 of 3 members differ from this node's by over 10 s"),
        ((30_000.0, 30_000.0, 2.0), "the clocks of 2 of 3 members differ from this node's by over 10 s"),
        ((20_000.0, -20_000.0), "the clocks of 2 of 2 members differ from this node's by over 10 s"),
        ((20_000.0,), "the clocks of 1 of 1 members differ from this node's by over 10 s"),
    ],
)
def test_the_clock_that_is_off_is_named(offsets_ms: tuple[float, ...], says: str) -> None:
    reason = judge_clock(offsets_ms)
    assert reason.partition(";")[0] == says
    assert ("set the clock of this machine" in reason) == reason.startswith("this node's")


def test_of_two_nodes_that_differ_neither_is_asked_to_set_its_clock() -> None:
    assert "set the clock" not in judge_clock((20_000.0,))
    assert "set the clock" not in judge_clock((-20_000.0,))


def test_a_store_that_cannot_write_is_failed_and_refusals_degrade() -> None:
    assert judge_store(KEPT) == (Status.HEALTHY, ())
    assert judge_store(replace(KEPT, pending=500)) == (Status.HEALTHY, ())
    status, reasons = judge_store(replace(KEPT, refused=2))
    assert status is Status.DEGRADED
    assert "bzzz pending --refused" in reasons[0]
    assert judge_store(replace(KEPT, failure="the disk is full"))[0] is Status.FAILED


def test_the_overall_status_is_the_worst_of_the_parts() -> None:
    assert worst([]) is Status.HEALTHY
    assert worst([Status.HEALTHY, Status.DEGRADED]) is Status.DEGRADED
    assert worst([Status.FAILED, Status.DEGRADED, Status.HEALTHY]) is Status.FAILED


# -- what was observed ------------------------------------------------------------------------------------------------


def test_suspects_are_named_with_what_they_missed() -> None:
    suspect = replace(GOOD, suspects=1, suspect_names=("n2 (no answer to a Ping within 500 ms)",))
    assert judge_swarm(suspect)[1] == ("1 connected members do not answer: n2 (no answer to a Ping within 500 ms)",)


@pytest.mark.parametrize(
    ("backend", "observed", "status"),
    [
        ("hybrid", {"probe_failing": "asked n2"}, Status.DEGRADED),
        ("real", {"probe_failing": "asked n2"}, Status.FAILED),
        ("real", {"calls_failing": "too few answered"}, Status.DEGRADED),
        ("mock", {"probe_failing": "asked n2", "calls_failing": "too few answered"}, Status.HEALTHY),
    ],
)
def test_repeated_failures_count(backend: str, observed: dict[str, str], status: Status) -> None:
    facts = replace(GOOD, backend=backend, **observed)  # type: ignore[arg-type]
    assert judge_swarm(facts) == (status, tuple(observed.values()) if status is not Status.HEALTHY else ())


def test_real_with_fewer_reachable_members_than_a_write_needs_has_a_reason() -> None:
    facts = replace(GOOD, backend="real", reachable=1, write_quorum=2)
    assert judge_swarm(facts) == (Status.DEGRADED, ("1 of the 2 peers that a write needs can be reached",))
    assert judge_swarm(replace(facts, backend="hybrid"))[0] is Status.HEALTHY


def test_a_store_that_does_not_answer_is_degraded() -> None:
    silent = replace(KEPT, probe_failing="the store did not answer a look-up within 1 s")
    assert judge_store(silent) == (Status.DEGRADED, ("the store did not answer a look-up within 1 s",))


@pytest.mark.parametrize(("seconds", "status"), [(0.9, Status.HEALTHY), (1.5, Status.DEGRADED), (60.0, Status.FAILED)])
def test_a_disk_that_stands_still_is_reported(seconds: float, status: Status) -> None:
    judged, reasons = judge_store(replace(KEPT, committing_seconds=seconds))
    assert judged is status
    if reasons:
        assert reasons == (f"the disk has not confirmed a write for {seconds:.1f} s; check the disk",)


SOUGHT = DiscoveryFacts(sources=2, faults=(), members=0, reachable=0)


@pytest.mark.parametrize(
    ("facts", "status", "says"),
    [
        (SOUGHT, Status.DEGRADED, "none of the 2 configured bootstrap nodes has been reached yet"),
        (replace(SOUGHT, faults=("a: gone",)), Status.DEGRADED, "a: gone"),
        (replace(SOUGHT, faults=("a: gone", "b: gone"), members=3), Status.DEGRADED, "b: gone"),
        (replace(SOUGHT, faults=("a: gone",), members=3), Status.HEALTHY, ""),
        (replace(SOUGHT, faults=("a: gone", "b: gone"), members=3, reachable=1), Status.HEALTHY, ""),
        (replace(SOUGHT, sources=0), Status.HEALTHY, "alone by choice: no bootstrap node is configured"),
        (
            replace(SOUGHT, sources=0, searches=("mdns",)),
            Status.HEALTHY,
            "alone so far: no other node was found by mdns",
        ),
        (replace(SOUGHT, sources=0, searches=("mdns",), faults=("x",)), Status.DEGRADED, "alone by failure"),
        (replace(SOUGHT, searches=("mdns",)), Status.DEGRADED, "alone by failure: none of the 2 configured"),
        (replace(SOUGHT, searches=("mdns",), faults=("a", "b"), members=1), Status.HEALTHY, ""),
    ],
)
def test_the_search_matters_while_no_member_is_found(facts: DiscoveryFacts, status: Status, says: str) -> None:
    found, reasons = judge_discovery(facts)
    assert found is status
    assert says in " ".join(reasons)
    assert bool(reasons) == bool(says)


def test_a_node_that_is_alone_by_choice_is_well_and_says_that_it_is_alone() -> None:
    alone = replace(GOOD, members=0, reachable=0)
    assert judge_swarm(alone)[0] is Status.DEGRADED
    status, reasons = judge_swarm(replace(alone, is_alone_by_choice=True))
    assert status is Status.HEALTHY
    assert "kept on this machine alone" in reasons[0]
    assert judge_swarm(replace(alone, is_alone_by_choice=True, backend="real"))[0] is Status.FAILED


def test_a_member_that_is_away_is_said_and_one_that_others_reach_is_a_fault() -> None:
    status, reasons = judge_swarm(replace(GOOD, reachable=3, away=("n3",)))
    assert (status, reasons) == (Status.HEALTHY, ("1 of the 4 members known is away: n3",))
    names = tuple(f"n{number}" for number in range(9))
    status, reasons = judge_swarm(replace(GOOD, doubted=("n3 (n2 alone says so; it is not reached)",)))
    assert status == Status.HEALTHY, "what one member makes up is no fault of this node"
    assert reasons[0].endswith("said by one member to be connected: n3 (n2 alone says so; it is not reached)")
    status, reasons = judge_swarm(replace(GOOD, apart=("n3 (connection refused)",), away=names))
    assert status is Status.DEGRADED
    assert reasons == (
        "connected with other members, and not with this node: n3 (connection refused)",
        "9 of the 4 members known are away: n0, n1, n2, n3, n4 and 4 more",
    )


def test_a_store_that_lost_writes_or_content_is_degraded_and_says_so() -> None:
    status, reasons = judge_store(replace(KEPT, taken_over="it is the store of another"))
    assert (status, reasons) == (Status.DEGRADED, ("it is the store of another",))
    status, (reason,) = judge_store(replace(KEPT, set_aside=3))
    assert status is Status.DEGRADED
    assert "3 versions were damaged" in reason


def test_replicas_that_are_missing_for_a_while_are_no_fault() -> None:
    assert judge_replicas(ReplicaFacts(at_risk=0, oldest_seconds=0.0)) == (Status.HEALTHY, ())
    assert judge_replicas(ReplicaFacts(at_risk=9, oldest_seconds=600.0)) == (Status.HEALTHY, ())


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (
            ReplicaFacts(at_risk=1, oldest_seconds=700.0),
            "1 address has fewer replicas than wanted, the oldest for 12 min",
        ),
        (ReplicaFacts(at_risk=2, oldest_seconds=700.0), "2 addresses have fewer replicas than wanted"),
        (ReplicaFacts(at_risk=0, oldest_seconds=0.0, held="5 of the 8 are away"), "5 of the 8 are away"),
    ],
)
def test_replicas_are_degraded_when_they_are_missing_for_long_or_nobody_is_replaced(
    facts: ReplicaFacts, reason: str
) -> None:
    status, reasons = judge_replicas(facts)
    assert status is Status.DEGRADED
    assert reasons[0].startswith(reason)
