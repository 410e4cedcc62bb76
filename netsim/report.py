"""The report of a failed run, for a person: what broke, the command that replays it, and the events that led to it."""

import re
import shlex
from collections.abc import Iterable, Iterator
from itertools import groupby

from netsim.checks.violation import Violation
from netsim.history import History, Operation, Outcome

LINES_MAX = 16
"""Events and calls shown for one violation: those nearest to it."""
TEXTS_MAX = 3
"""Violations of one check that are shown; the rest are counted."""
BEFORE_SECONDS = 3.0
"""How long before the first call that takes part events are shown."""
_DIGEST = re.compile(r"\b[0-9a-f]{16}\b")


def replay_command(scenario: str, seed: int) -> str:
    return f"bzzz sim run {shlex.quote(scenario)} --world virtual --seed {seed}"


def failure_report(
    scenario: str, seed: int, history: History, violations: Iterable[Violation], *, replay: str = ""
) -> str:
    """The whole report of one failed run. `scenario` is the name or file that the user gave; `replay` is the command
    that replays the run, where that is not `replay_command`."""
    by_check = [(check, list(group)) for check, group in groupby(violations, key=lambda one: one.check)]
    lines = [
        f"{scenario}, seed {seed}: {', '.join(check for check, _ in by_check)}",
        f"  again: {replay or replay_command(scenario, seed)}",
    ]
    for check, group in by_check:
        lines.append("")
        for violation in group[:TEXTS_MAX]:
            lines.append(f"  {check}: {violation.text}")
        if len(group) > TEXTS_MAX:
            lines.append(f"  {check}: and {len(group) - TEXTS_MAX} more like these")
        causes = [f"    {line}" for line in _led_to(history, group[0])]
        lines += ["    what led to the first:", *causes] if causes else []
    return "\n".join(lines)


def _led_to(history: History, violation: Violation) -> Iterator[str]:
    """The few events and calls that matter, in order."""
    operations = _taking_part(history, violation)
    times = [op.called for op in operations]
    end = violation.at if violation.at is not None else (history.settled_at or history.parameters.faults_seconds)
    begin = min(times, default=end) - BEFORE_SECONDS
    nodes = {*violation.nodes, *(op.node for op in operations)}
    events = [e for e in history.events if begin <= e.at <= end and (nodes & {*e.nodes} or not nodes)]
    entries = [(event.at, event.text) for event in events]
    entries = sorted(entries, key=lambda entry: _distance(entry[0], times))[: max(2, LINES_MAX - len(operations))]
    entries += [(op.returned, _operation(op)) for op in operations]
    for at, text in sorted(entries, key=lambda entry: entry[0]):
        yield f"{at:8.3f} s  {text}"


def _taking_part(history: History, violation: Violation) -> list[Operation]:
    """The calls that a violation names, by number or by the version that they wrote."""
    digests = {*_DIGEST.findall(violation.text)}
    ids = {*violation.operations}
    ids.update(op.id for op in history.writes if op.digest in digests)
    for state in history.states:
        for ref in state.versions.get(violation.key, ()):
            if ref.digest in digests and ref.op:
                ids.add(ref.op)
    return [op for op in history.operations if op.id in ids][:LINES_MAX]


def _distance(at: float, times: list[float]) -> float:
    """How far an event is from the calls. What came before a call matters more than what came after it."""
    return min((time - at if at <= time else 3.0 * (at - time) for time in times), default=0.0)


def _operation(op: Operation) -> str:
    if op.outcome is not Outcome.OK:
        return f"{op.node} answered a {op.kind} of {op.key} by {op.client} with {op.outcome}: {op.error or op.excused}"
    if op.receipt is not None:
        receipt = op.receipt
        on_top = f" on top of {'+'.join(receipt.parents)}" if receipt.parents else ""
        held = f"; on the disks of {', '.join(receipt.held_by)}" if receipt.held_by else ""
        counted = f"{receipt.acknowledged} of {receipt.wanted}"
        return (
            f"{op.node} acknowledged a {op.kind} of {op.key}: {receipt.digest}{on_top} "
            f"({receipt.backend}, {counted}{held})"
        )
    if op.answer is not None:
        heads = "+".join(op.shown) or "absent"
        age = "" if op.answer.age_ms is None else f", {op.answer.age_ms:.0f} ms old"
        degraded = ", degraded" if op.answer.is_degraded else ""
        return f"{op.node} answered {op.key} ({op.how}) with {heads} ({op.answer.source}{age}{degraded})"
    return f"{op.node} answered a {op.kind} of {op.key}"
