"""The current trace: one text that follows a call through every node that it touches.

A trace comes with a request to the API, or in a frame of another node. It goes with everything that this causes: into
the tasks that start (trio copies contexts), into each log record, and into the frames that are sent. An item in a queue
carries its trace itself, because a task of another context takes it from there.
"""

from collections.abc import Iterable
from contextvars import ContextVar

from protocols.messages import TRACE_MAX

_current: ContextVar[str] = ContextVar("bzzz_trace", default="")

current = _current.get
"""The current trace, '' for none; several separated by commas while work for several calls is done."""


def to_send() -> str:
    """The current trace if a frame can carry it (it is one, not several), else ''."""
    trace = _current.get()
    return trace if len(trace) <= TRACE_MAX else ""


class following:
    """Within the context the current trace is this one, or all of these."""

    __slots__ = ("_token", "_traces")

    def __init__(self, traces: str | Iterable[str]) -> None:
        self._traces = traces if isinstance(traces, str) else ",".join(dict.fromkeys(filter(None, traces)))

    def __enter__(self) -> None:
        self._token = _current.set(self._traces)

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)
