"""Contradictions in a scenario whose values are all allowed by themselves: the key and the reason, for `toml.py`."""

from collections.abc import Iterator

from netsim.faults.base import Fault
from netsim.faults.kinds import Join, Restart
from netsim.scenario.model import Scenario


def contradictions(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """All of them, in the order of the file: the key, and why it cannot be."""
    yield from _of_workload(scenario)
    for quorum in ("write_quorum", "read_quorum"):
        number = scenario.settings.get(quorum)
        if isinstance(number, int) and number > scenario.replication:
            yield f"settings.{quorum}", f"a quorum of {number} is never reached with replication {scenario.replication}"
    if len({*scenario.late, *scenario.byzantine}) == len(scenario.nodes):
        yield "fault", "every node joins later or lies, so no node runs at the start"
    joins_at = _joins_at(scenario)
    alone = _nodes_without_network(scenario)
    for number, fault in enumerate(scenario.faults, start=1):
        at = f"fault {number}"
        yield from _of_times(fault, at, scenario.limits.faults_seconds)
        if not fault.brings_nodes:
            yield from _of_nodes(fault, at, scenario.byzantine, joins_at)
        for key, reason in fault.contradictions(alone):
            yield f"{at}.{key}" if key else at, reason
    brought = scenario.late + scenario.byzantine
    for node in dict.fromkeys(brought):
        if brought.count(node) > 1:
            yield "fault", f"{node} comes twice: a node joins once, or lies once"


def _of_workload(scenario: Scenario) -> Iterator[tuple[str, str]]:
    workload, ends_at = scenario.workload, scenario.limits.faults_seconds
    if workload.until is not None and workload.until > ends_at:
        yield "workload.until", f"{workload.until:g} s is after limits.faults_seconds, {ends_at:g}"
    for first, second in (("seen", "blind"), ("local", "swarm")):
        if getattr(workload, first) + getattr(workload, second) > 1.0:
            yield f"workload.{first}", f"{first} and {second} are shares of the same calls, and make over 1 together"
    if workload.readers > workload.clients:
        yield "workload.readers", f"{workload.readers} clients only read, and there are {workload.clients}"
    for node in scenario.byzantine:
        if node in workload.nodes:
            yield "workload.nodes", f"{node} lies, so no client can call it"


def _of_times(fault: Fault, at: str, ends_at: float) -> Iterator[tuple[str, str]]:
    after = f"is after limits.faults_seconds, {ends_at:g}"
    if fault.at > ends_at:
        yield f"{at}.at", f"{fault.at:g} s {after}"
    if fault.until is not None and fault.until <= fault.at:
        yield f"{at}.until", f"it would end at {fault.until:g} s, before it begins at {fault.at:g} s"
    if fault.until is not None and fault.until > ends_at:
        yield f"{at}.until", f"{fault.until:g} s {after}"
    if fault.nodes and fault.every_seconds is not None:
        first = fault.at if fault.until is None else fault.until
        last = first + (len(fault.nodes) - 1) * fault.every_seconds
        if last > ends_at:
            yield f"{at}.every_seconds", f"it would last until {last:g} s at the last node, too late"


def _of_nodes(
    fault: Fault, at: str, byzantine: tuple[str, ...], joins_at: dict[str, float]
) -> Iterator[tuple[str, str]]:
    if lying := sorted({*fault.nodes} & {*byzantine}):
        yield f"fault {fault.kind}", f"{lying[0]} lies, so it runs no node that this could happen to"
    for node in fault.nodes:
        if fault.at < joins_at.get(node, 0.0):
            yield f"{at}.at", f"{node} joins at {joins_at[node]:g} s, so nothing can happen to it at {fault.at:g} s"


def _joins_at(scenario: Scenario) -> dict[str, float]:
    """When each node joins that joins later."""
    return {
        node: fault.at + number * (fault.every_seconds or 0.0)
        for fault in scenario.faults
        if isinstance(fault, Join)
        for number, node in enumerate(fault.nodes)
    }


def _nodes_without_network(scenario: Scenario) -> tuple[str, ...]:
    """The nodes that are started as mock, and never restarted on another backend."""
    restarted = {n for fault in scenario.faults if isinstance(fault, Restart) and fault.backend for n in fault.nodes}
    return tuple(node for node in scenario.nodes if scenario.backend_of(node) == "mock" and node not in restarted)
