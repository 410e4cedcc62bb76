"""Promise 5: nodes that can talk to each other end up equal, within the scenario's bound."""

from collections.abc import Iterator

from netsim.checks.broken import Broken
from netsim.history import History


def settles(history: History) -> Iterator[Broken]:
    """After healing, all is well within the bound: equal heads, nothing owed, breakers closed."""
    if history.healed_at is not None and history.settled_at is None:
        yield Broken(
            check="settles",
            text=f"{history.setting.settle_seconds:g} s after healing all was not well: {history.unsettled}",
            nodes=tuple(node for node in history.setting.nodes if node in history.unsettled.split()),
        )


def equal(history: History) -> Iterator[Broken]:
    """The same heads everywhere: in the stores of all that should hold a key, and in what every node answers."""
    social = {state.node: state for state in history.states if state.backend != "mock"}
    for key, holders in history.setting.holders.items():
        heads = {node: social[node].heads.get(key, ()) for node in holders if node in social}
        yield from _compare(key, heads, "holds")
    answers: dict[str, dict[str, tuple[str, ...]]] = {}
    for read in history.reads:
        if read.is_final and read.node in social and read.sight is not None:
            answers.setdefault(read.key, {})[read.node] = tuple(head.digest for head in read.sight.heads)
    for key, told in answers.items():
        yield from _compare(key, told, "answers with")


def _compare(key: str, heads: dict[str, tuple[str, ...]], verb: str) -> Iterator[Broken]:
    if len({*heads.values()}) > 1:
        told = "; ".join(f"{node} {verb} {'+'.join(digests) or 'nothing'}" for node, digests in heads.items())
        yield Broken(check="equal", text=f"in the end the heads of {key} differ: {told}", key=key, nodes=tuple(heads))
