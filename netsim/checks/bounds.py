"""Nothing grows without end: frames under way, tasks; and what a run needed is given back when it is over."""

from collections.abc import Iterator

from netsim.checks.violation import Violation
from netsim.history import History

SPARE_TASKS = 60
"""Clients, faults and the world's own."""


def bounded(history: History) -> Iterator[Violation]:
    """Queues keep their sizes, and tasks end."""
    setting = history.setting
    for sample in history.samples:
        if sample.frames > setting.frames_per_link:
            yield Violation(
                check="bounded",
                text=f"{sample.frames} frames were under way in one lane at {sample.at:.1f} s; at most "
                f"{setting.frames_per_link} are allowed",
                at=sample.at,
            )
        allowed = setting.tasks_per_node * max(1, sample.nodes) + SPARE_TASKS
        if sample.tasks > allowed:
            yield Violation(
                check="bounded",
                text=f"{sample.tasks} tasks lived at {sample.at:.1f} s over {sample.nodes} nodes, of {allowed} at most",
                at=sample.at,
            )
