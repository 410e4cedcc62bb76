"""One broken promise, found in a history: which check, what happened, and who and what took part in it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """`text` is a sentence. The rest is for `netsim/report.py`, which tells what led to it."""

    check: str
    text: str
    key: str = ""
    nodes: tuple[str, ...] = ()
    operations: tuple[int, ...] = ()
    """Those that take part in it, by their ids."""
    at: float | None = None
    """When it showed; None: at the end."""
