"""A failed run as a story that a person can read: what broke, how to see it again, and what led to it, in order."""

import re
import shlex
from collections.abc import Iterable, Iterator
from itertools import groupby

from netsim.checks.violation import Violation
from netsim.history import Event, History, Operation, Outcome

LINES_MAX = 16
"""Of what led to one broken promise; those nearest to it are told."""
TEXTS_MAX = 3
"""Of the same check; the rest are counted."""
BEFORE_SECONDS = 3.0
"""How long before the first call that takes part the world's events are told."""
_DIGEST = re.compile(r"\b[0-9a-f]{16}\b")


def command(scenario: str, seed: int) -> str:
    """What replays a run."""
    return f"bzzz sim run {shlex.quote(scenario)} --world virtual --seed {seed}"


def told(scenario: str, seed: int, history: History, broken: Iterable[Violation], *, again: str = "") -> str:
    """The whole story of one failed run. `scenario` is its name or file, as it was asked for; `again` what replays it,
    where that is not `command`."""
    by_check = [(check, list(group)) for check, group in groupby(broken, key=lambda one: one.check)]
    lines = [
        f"{scenario}, seed {seed}: {', '.join(check for check, _ in by_check)}",
        f"  again: {again or command(scenario, seed)}",
    ]
    for check, group in by_check:
        lines.append("")
        for one in group[:TEXTS_MAX]:
            lines.append(f"  {check}: {one.text}")
        if len(group) > TEXTS_MAX:
            lines.append(f"  {check}: and {len(group) - TEXTS_MAX} more like these")
        story = [f"    {line}" for line in _story(history, group[0])]
        lines += ["    what led to the first:", *story] if story else []
    return "\n".join(lines)


def _story(history: History, broken: Violation) -> Iterator[str]:
    """The few events that matter, in order."""
    operations = _taking_part(history, broken)
    times = [op.called for op in operations]
    end = broken.at if broken.at is not None else (history.settled_at or history.setting.faults_seconds)
    begin = min(times, default=end) - BEFORE_SECONDS
    nodes = {*broken.nodes, *(op.node for op in operations)}
    events = [e for e in history.events if begin <= e.at <= end and (nodes & {*e.nodes} or not nodes)]
    entries = [(event.at, _event(event)) for event in events]
    entries = sorted(entries, key=lambda entry: _distance(entry[0], times))[: max(2, LINES_MAX - len(operations))]
    entries += [(op.returned, _operation(op)) for op in operations]
    for at, text in sorted(entries, key=lambda entry: entry[0]):
        yield f"{at:8.3f} s  {text}"


def _taking_part(history: History, broken: Violation) -> list[Operation]:
    """The calls that a broken promise names, by number or by what they wrote."""
    digests = {*_DIGEST.findall(broken.text)}
    ids = {*broken.operations}
    ids.update(op.id for op in history.writes if op.digest in digests)
    for state in history.states:
        for ref in state.versions.get(broken.key, ()):
            if ref.digest in digests and ref.op:
                ids.add(ref.op)
    return [op for op in history.operations if op.id in ids][:LINES_MAX]


def _distance(at: float, times: list[float]) -> float:
    """What came before a call matters more than what came after it."""
    return min((time - at if at <= time else 3.0 * (at - time) for time in times), default=0.0)


def _event(event: Event) -> str:
    return event.text


def _operation(op: Operation) -> str:
    if op.outcome is not Outcome.OK:
        return f"{op.node} answered a {op.kind} of {op.key} by {op.client} with {op.outcome}: {op.error or op.excused}"
    if op.receipt is not None:
        got = op.receipt
        on_top = f" on top of {'+'.join(got.parents)}" if got.parents else ""
        held = f"; on the disks of {', '.join(got.held_by)}" if got.held_by else ""
        counted = f"{got.acknowledged} of {got.wanted}"
        return f"{op.node} acknowledged a {op.kind} of {op.key}: {got.digest}{on_top} ({got.backend}, {counted}{held})"
    if op.sight is not None:
        heads = "+".join(head.digest for head in op.sight.heads) or "absent"
        age = "" if op.sight.age_ms is None else f", {op.sight.age_ms:.0f} ms old"
        degraded = ", degraded" if op.sight.is_degraded else ""
        return f"{op.node} answered {op.key} ({op.how}) with {heads} ({op.sight.source}{age}{degraded})"
    return f"{op.node} answered a {op.kind} of {op.key}"
