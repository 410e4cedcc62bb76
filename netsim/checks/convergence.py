"""Promise 5, convergence: nodes that can reach each other end up equal, within the scenario's bound."""

from collections.abc import Iterator
from dataclasses import replace

from netsim.checks.versions import heads_of
from netsim.checks.violation import Violation
from netsim.history import FinalState, History


def settles(history: History) -> Iterator[Violation]:
    """After healing, all settles within the bound: equal heads, no hints left, breakers closed."""
    parameters = history.parameters
    if history.healed_at is not None and history.settled_at is None:
        yield Violation(
            check="settles",
            text=f"{parameters.settle_seconds:g} s after healing not all had settled: {history.unsettled}",
            nodes=tuple(node for node in parameters.nodes if node in history.unsettled.split()),
        )


def equal(history: History) -> Iterator[Violation]:
    """The same heads everywhere: in the stores of all nodes that should hold a key, and in what every node answers."""
    swarm = {state.node: state for state in history.states if state.backend != "mock"}
    uneven = {} if history.parameters.spreads_all else _unacknowledged(history)
    for key, holders in history.parameters.holders.items():
        without = uneven.get(key, {}) | _lost(history, key)
        heads = {node: _heads(swarm[node], key, without) for node in holders if node in swarm}
        yield from _compare(key, heads, "holds")
    answers: dict[str, dict[str, tuple[str, ...]]] = {}
    for read in history.reads:
        if read.is_final and read.node in swarm and read.key not in uneven:
            answers.setdefault(read.key, {})[read.node] = tuple(read.shown)
    for key, answered in answers.items():
        yield from _compare(key, answered, "answers with")


def _unacknowledged(history: History) -> dict[str, dict[str, None]]:
    """By key: the versions that nodes hold or know of, and that were not acknowledged."""
    acknowledged = {op.receipt.digest for op in history.writes if op.receipt is not None}
    found: dict[str, dict[str, None]] = {}
    for state in history.states:
        for key, refs in state.versions.items():
            for ref in refs:
                if ref.digest not in acknowledged:
                    found.setdefault(key, {})[ref.digest] = None
    return found


def _lost(history: History, key: str) -> dict[str, None]:
    """The versions of byzantine nodes that a node knows of, and whose content it lacks: their notices are in answers
    alone, and reach the nodes that ask."""
    byzantine = history.parameters.byzantine
    return {
        ref.digest: None
        for state in history.states
        for ref in state.versions.get(key, ())
        if not ref.is_held and ref.author in byzantine
    }


def _heads(state: FinalState, key: str, without: dict[str, None]) -> tuple[str, ...]:
    """The heads that a node has, or would have without some versions."""
    if not without:
        return state.heads.get(key, ())
    refs = tuple(ref for ref in state.versions.get(key, ()) if ref.digest not in without)
    return tuple(sorted(heads_of(replace(state, versions={key: refs}), key)))


def _compare(key: str, heads: dict[str, tuple[str, ...]], verb: str) -> Iterator[Violation]:
    if len({*heads.values()}) > 1:
        differences = "; ".join(f"{node} {verb} {'+'.join(digests) or 'nothing'}" for node, digests in heads.items())
        yield Violation(
            check="equal", text=f"in the end the heads of {key} differ: {differences}", key=key, nodes=tuple(heads)
        )
