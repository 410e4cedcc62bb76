"""Bounds: frames under way and tasks stay within their limits over the whole run."""

from collections.abc import Iterator

from netsim.checks.violation import Violation
from netsim.history import History

SPARE_TASKS = 60
"""The tasks of clients, faults and the world itself."""


def bounded(history: History) -> Iterator[Violation]:
    """Queues keep within their sizes, and tasks end."""
    parameters = history.parameters
    for sample in history.samples:
        if sample.frames > parameters.frames_per_link:
            yield Violation(
                check="bounded",
                text=f"{sample.frames} frames were under way in one lane at {sample.at:.1f} s; at most "
                f"{parameters.frames_per_link} are allowed",
                at=sample.at,
            )
        allowed = parameters.tasks_per_node * max(1, sample.nodes) + SPARE_TASKS
        if sample.tasks > allowed:
            yield Violation(
                check="bounded",
                text=f"{sample.tasks} tasks lived at {sample.at:.1f} s over {sample.nodes} nodes, of {allowed} at most",
                at=sample.at,
            )
