"""The plan of a live run: drawn by its seed alone, with every kind of fault that processes can play, and no other."""

from collections import Counter
from dataclasses import replace
from typing import TypeVar

import pytest

from netsim.faults.base import Fault, unplayable
from netsim.faults.disk_kinds import BadDisk, Clone, OldCopy
from netsim.faults.kinds import (
    KINDS,
    Byzantine,
    ClockJump,
    ClockOffset,
    Crash,
    Cut,
    Flip,
    Join,
    Partition,
    Pause,
    Restart,
    SlowLink,
)
from netsim.processes.plan import (
    DRAWN_KINDS,
    NODES,
    SECONDS_MIN,
    START_SECONDS_MAX,
    live_plan,
    live_scenario,
)
from netsim.processes.world import ProcessWorld
from netsim.scenario.plan import Plan
from netsim.workload import Call
from netsim.world import DiskQuality

SEEDS = range(60)
Kind = TypeVar("Kind", bound=Fault)
NO_PROCESS_CAN = (
    Restart(at=1.0, nodes=("n1",)),
    Cut(at=1.0, sources=("n1",), targets=("n2",)),
    SlowLink(at=1.0),
    BadDisk(at=1.0, nodes=("n1",), quality=DiskQuality(is_full=True)),
    ClockOffset(at=1.0, nodes=("n1",), off_seconds=1.0),
    ClockJump(at=1.0, nodes=("n1",), off_seconds=1.0),
    Join(at=1.0, nodes=("n1",)),
    Byzantine(at=1.0, nodes=("n1",)),
    OldCopy(at=1.0, until=2.0, nodes=("n1",)),
    Clone(at=1.0, until=2.0, nodes=("n1",)),
)


def faults(seed: int, *kinds: type[Kind], seconds: float = 15.0) -> list[Kind]:
    return [fault for fault in live_scenario(seconds, seed).faults if isinstance(fault, kinds)]


def test_a_seed_draws_the_same_plan_again_and_another_seed_another() -> None:
    assert live_plan(15.0, 3) == live_plan(15.0, 3)
    assert live_plan(15.0, 3).faults != live_plan(15.0, 4).faults
    assert live_plan(15.0, 3).calls != live_plan(15.0, 4).calls


@pytest.mark.parametrize("seconds", [SECONDS_MIN, 15.0, 60.0])
def test_every_run_pauses_kills_parts_and_flips(seconds: float) -> None:
    for seed in SEEDS:
        kinds = Counter(type(fault) for fault in live_scenario(seconds, seed).faults)
        assert set(kinds) == {*DRAWN_KINDS, Flip}, (seed, kinds)


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        *((fault, f"kind '{fault.kind}'") for fault in NO_PROCESS_CAN),
        (Crash(at=1.0, nodes=("n1",), loses_disk=True), "loses_disk"),
    ],
)
async def test_a_fault_that_no_process_can_play_is_refused_by_name_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, fault: Fault, why: str
) -> None:
    started: list[object] = []
    monkeypatch.setattr("netsim.processes.world.Swarm", lambda **arguments: started.append(arguments))
    scenario = live_scenario(15.0, 1)
    number = len(scenario.faults) + 1
    scenario = replace(scenario, faults=(*scenario.faults, fault))
    with pytest.raises(AssertionError, match=f"the scenario live is not for a live world: fault {number}, {why}: "):
        async with ProcessWorld.open(scenario, lambda event, text: None, keep=lambda: False):
            pass
    assert started == []


def test_every_kind_is_drawn_or_no_process_can_play_it() -> None:
    playable = {*DRAWN_KINDS, Flip}
    assert {*KINDS.values()} == playable | {type(fault) for fault in NO_PROCESS_CAN}


def test_real_processes_can_play_what_is_drawn() -> None:
    for seed in SEEDS:
        assert unplayable(live_scenario(15.0, seed).faults, ProcessWorld.ABILITIES) == ""


def test_nodes_are_flipped_every_second_each_to_another_backend_than_it_had() -> None:
    for seed in SEEDS:
        had = dict.fromkeys(NODES, "hybrid")
        flips = faults(seed, Flip)
        assert {fault.at for fault in flips} == {float(second) for second in range(2, 15)}
        for fault in flips:
            (node,) = fault.nodes
            assert fault.backend != had[node]
            had[node] = fault.backend


def test_no_node_has_two_faults_at_once_and_all_faults_end_before_the_healing() -> None:
    for seed in SEEDS:
        free_at = dict.fromkeys(NODES, 0.0)
        for fault in faults(seed, Pause, Crash, seconds=60.0):
            assert fault.until is not None and fault.at < fault.until <= 60.0
            assert fault.nodes and all(free_at[node] <= fault.at for node in fault.nodes)
            rest = START_SECONDS_MAX if isinstance(fault, Crash) else 0.0
            free_at.update(dict.fromkeys(fault.nodes, fault.until + rest))


def test_a_partition_puts_every_node_on_one_side_and_two_never_overlap() -> None:
    for seed in SEEDS:
        until = 0.0
        for fault in faults(seed, Partition, seconds=60.0):
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
