"""What in a scenario cannot be, though each of its values may: told by key and reason, for `toml.py`."""

from collections.abc import Iterator

from netsim.scenario.model import Fault, FaultKind, Scenario

_COMES_OR_LIES = (FaultKind.LIE, FaultKind.JOIN)


def contradictions(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Every one, in the order of the file: the key, and why it cannot be."""
    workload = scenario.workload
    if workload.readers > workload.clients:
        yield "workload.readers", f"{workload.readers} clients only read, and there are {workload.clients}"
    for quorum in ("write_quorum", "read_quorum"):
        number = scenario.settings.get(quorum)
        if isinstance(number, int) and number > scenario.replication:
            yield f"settings.{quorum}", f"a quorum of {number} is never reached with replication {scenario.replication}"
    for liar in scenario.liars:
        if liar in workload.nodes:
            yield "workload.nodes", f"{liar} lies, so nobody can call it"
    absent = {*scenario.late, *scenario.liars}
    if len(absent) == len(scenario.nodes):
        yield "fault", "every node joins later or lies: nobody is there at the start"
    for number, fault in enumerate(scenario.faults, start=1):
        yield from _of_fault(fault, f"fault {number}", scenario)
    for node in dict.fromkeys((*scenario.late, *scenario.liars)):
        if (scenario.late + scenario.liars).count(node) > 1:
            yield "fault", f"{node} comes twice: a node joins once, or lies once"


def _of_fault(fault: Fault, at: str, scenario: Scenario) -> Iterator[tuple[str, str]]:
    touched = {*fault.nodes} if fault.kind not in _COMES_OR_LIES else set()
    if lying := sorted(touched & {*scenario.liars}):
        yield f"fault {fault.kind}", f"{lying[0]} lies; it has no process of ours to suffer that"
    comes_at = _joined(scenario)
    for node in fault.nodes if fault.kind not in _COMES_OR_LIES else ():
        if fault.at < comes_at.get(node, 0.0):
            yield f"{at}.at", f"{node} joins at {comes_at[node]:g} s: nothing can befall it at {fault.at:g} s"
    match fault.kind:
        case FaultKind.PARTITION if len(fault.groups) < 2:
            yield f"{at}.groups", "a partition has two groups or more"
        case FaultKind.CUT | FaultKind.LINK if (
            fault.sources and {*fault.sources} == {*fault.targets} and (len({*fault.sources}) == 1)
        ):
            yield f"{at}.targets", f"{fault.sources[0]} has no link to itself"
        case FaultKind.DISK if [bool(fault.commit_ms), fault.is_full, fault.is_stalled].count(True) != 1:
            yield f"{at}", "a disk is slow (commit_ms), full (is_full) or stalled (is_stalled): name one of them"
        case FaultKind.FLIP:
            restarted = {
                n for one in scenario.faults if one.kind is FaultKind.RESTART and one.backend for n in one.nodes
            }
            for node in fault.nodes:
                if scenario.backend_of(node) == "mock" and node not in restarted:
                    yield f"{at}.nodes", f"{node} is started as mock, without a network, and cannot be turned"
        case _:
            pass


def _joined(scenario: Scenario) -> dict[str, float]:
    """When those come that join later."""
    return {
        node: fault.at + number * (fault.every_seconds or 0.0)
        for fault in scenario.faults
        if fault.kind is FaultKind.JOIN
        for number, node in enumerate(fault.nodes)
    }
