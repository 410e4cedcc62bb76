"""A violation: one broken promise that a check found in a history, and the nodes and operations that took part."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """`text` is a sentence. The other fields are for `netsim/report.py`, which shows what led to it."""

    check: str
    text: str
    key: str = ""
    nodes: tuple[str, ...] = ()
    operations: tuple[int, ...] = ()
    """The ids of those that take part."""
    at: float | None = None
    """When it showed; None: at the end."""
