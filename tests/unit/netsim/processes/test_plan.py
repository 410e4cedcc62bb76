"""The plan of a live run: drawn by its seed alone, with every kind of fault, and none that a process cannot suffer."""

from collections import Counter
from dataclasses import replace

import pytest

from netsim.history import Outcome
from netsim.processes.plan import (
    BLOWS,
    KINDS,
    NODES,
    SECONDS_MIN,
    START_SECONDS_MAX,
    live_plan,
    live_scenario,
    unplayable,
)
from netsim.processes.run import live_facts
from netsim.processes.world import ProcessWorld
from netsim.scenario.model import Fault, FaultKind
from netsim.scenario.plan import Call, Plan
from netsim.world import Condition
from tests.unit.histories import good

SEEDS = range(60)


def faults(seed: int, *kinds: FaultKind, seconds: float = 15.0) -> list[Fault]:
    return [fault for fault in live_scenario(seconds, seed).faults if fault.kind in kinds]


def test_a_seed_draws_the_same_plan_again_and_another_seed_another() -> None:
    assert live_plan(15.0, 3) == live_plan(15.0, 3)
    assert live_plan(15.0, 3).faults != live_plan(15.0, 4).faults
    assert live_plan(15.0, 3).calls != live_plan(15.0, 4).calls


@pytest.mark.parametrize("seconds", [SECONDS_MIN, 15.0, 60.0])
def test_every_run_freezes_kills_parts_and_turns(seconds: float) -> None:
    for seed in SEEDS:
        kinds = Counter(fault.kind for fault in live_scenario(seconds, seed).faults)
        assert set(kinds) == {*BLOWS, FaultKind.FLIP}, (seed, kinds)


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        *((Fault(kind=kind, at=1.0, nodes=("n1",)), f"kind '{kind}'") for kind in FaultKind if kind not in KINDS),
        (Fault(kind=FaultKind.CRASH, at=1.0, nodes=("n1",), loses_disk=True), "loses_disk"),
        (Fault(kind=FaultKind.CRASH, at=1.0, nodes=("n1",), backend="mock"), "backend 'mock'"),
    ],
)
async def test_a_fault_that_no_process_can_suffer_is_refused_by_name_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, fault: Fault, why: str
) -> None:
    started: list[object] = []
    monkeypatch.setattr("netsim.processes.world.Swarm", lambda **told: started.append(told))
    scenario = live_scenario(15.0, 1)
    number = len(scenario.faults) + 1
    scenario = replace(scenario, faults=(*scenario.faults, fault))
    with pytest.raises(AssertionError, match=f"the scenario live is not for a live world: fault {number}, {why}: "):
        async with ProcessWorld.open(scenario, lambda event, text: None, keep=lambda: False):
            pass
    assert started == []


def test_what_is_drawn_real_processes_can_suffer() -> None:
    for seed in SEEDS:
        assert unplayable(live_scenario(15.0, seed).faults) == ""


def test_nodes_are_turned_every_second_each_to_another_backend_than_it_had() -> None:
    for seed in SEEDS:
        had = dict.fromkeys(NODES, "hybrid")
        flips = faults(seed, FaultKind.FLIP)
        assert {fault.at for fault in flips} == {float(second) for second in range(2, 15)}
        for fault in flips:
            (node,) = fault.nodes
            assert fault.backend is not None and fault.backend != had[node]
            had[node] = fault.backend


def test_no_node_is_struck_while_it_still_suffers_and_all_end_before_the_healing() -> None:
    for seed in SEEDS:
        free_at = dict.fromkeys(NODES, 0.0)
        for fault in faults(seed, FaultKind.PAUSE, FaultKind.CRASH, seconds=60.0):
            assert fault.until is not None and fault.at < fault.until <= 60.0
            assert fault.nodes and all(free_at[node] <= fault.at for node in fault.nodes)
            rest = START_SECONDS_MAX if fault.kind is FaultKind.CRASH else 0.0
            free_at.update(dict.fromkeys(fault.nodes, fault.until + rest))


def test_a_partition_puts_every_node_on_one_side_and_two_never_overlap() -> None:
    for seed in SEEDS:
        until = 0.0
        for fault in faults(seed, FaultKind.PARTITION, seconds=60.0):
            assert sorted(node for side in fault.groups for node in side) == sorted(NODES)
            assert len(fault.groups) >= 2 and all(fault.groups)
            assert fault.at >= until and fault.until is not None
            until = fault.until


def calls_by_role(plan: Plan) -> tuple[list[Call], list[Call]]:
    """Those of the writers, and those of the readers."""
    writers = {f"c{number}" for number in range(1, 5)}
    return [c for c in plan.calls if c.client in writers], [c for c in plan.calls if c.client not in writers]


def test_four_writers_call_four_nodes_and_readers_only_read() -> None:
    writers, readers = calls_by_role(live_plan(15.0, 1))
    assert len({call.client for call in writers}) == len({call.node for call in writers}) == 4
    assert {call.node for call in readers} == {*NODES}
    assert not any(call.is_write for call in readers)
    for client in {call.client for call in writers}:
        mine = [call for call in writers if call.client == client]
        assert 15 <= len(mine) / 15.0 <= 40, "calls a second of one writer"
        assert {call.is_write for call in mine} == {True, False}


def test_every_key_is_written_before_anything_goes_wrong_and_calls_are_numbered_in_their_order() -> None:
    plan = live_plan(15.0, 1)
    first = min(fault.at for fault in plan.faults)
    early = {call.key for call in plan.calls if call.is_write and call.at < first}
    assert early == {f"k{number}" for number in range(1, plan.scenario.workload.keys + 1)}
    assert [call.id for call in plan.calls] == list(range(1, len(plan.calls) + 1))
    assert [call.at for call in plan.calls] == sorted(call.at for call in plan.calls)


def test_a_call_knows_what_its_node_was_turned_through_meanwhile() -> None:
    condition = Condition("hybrid")
    assert (condition.in_force, condition.backend_since(0, "hybrid")) == ("hybrid", "hybrid")
    condition.turns += ["hybrid>real", "real"]
    assert condition.in_force == "real"
    assert condition.backend_since(0, "hybrid") == "hybrid>real"
    assert condition.backend_since(1, "hybrid>real") == "hybrid>real"
    assert condition.backend_since(2, "real") == "real"
    condition.turns += ["real>mock", "mock", "mock>hybrid", "hybrid"]
    assert condition.backend_since(2, "real") == "real>mock>hybrid"


def test_the_facts_of_a_run_count_hybrid_calls_at_nodes_that_were_left_alone() -> None:
    history = good()
    facts = live_facts(history)
    assert (facts["calls"], facts["acknowledged"], facts["hybrid_calls"], facts["hybrid_failed"]) == (4, 2, 4, {})
    assert facts["settle_seconds"] == 5.0
    write = history.operations[0]
    history.operations += [
        replace(write, id=50, outcome=Outcome.FAILED, receipt=None, error="UCXL-503-UNAVAILABLE: why"),
        replace(write, id=51, outcome=Outcome.FAILED, receipt=None, error="x", excused="it was frozen"),
        replace(write, id=52, outcome=Outcome.FAILED, receipt=None, error="x", backend="hybrid>real"),
    ]
    facts = live_facts(history)
    assert (facts["hybrid_calls"], facts["excused"]) == (5, 1)
    assert facts["hybrid_failed"] == {"UCXL-503-UNAVAILABLE": 1}
