"""The trace that what is done now belongs to: one text that follows a call through every node it touches.

It comes in with a request to the API, or in a frame of another node, and goes along with whatever that sets going: with
the tasks it starts (trio hands contexts on), into each log record, and into the frames that are sent for it. What was
handed to a queue names its trace beside it, for a task of another context takes it from there.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from protocols.messages import TRACE_MAX

_current: ContextVar[str] = ContextVar("bzzz_trace", default="")

current = _current.get
"""The trace of what is done now, '' for none; several with commas between them for what serves several calls."""


def to_send() -> str:
    """The trace as a frame can carry it: one, or ''."""
    trace = _current.get()
    return trace if len(trace) <= TRACE_MAX else ""


@contextmanager
def following(traces: str | Iterable[str]) -> Iterator[None]:
    """What is done in it belongs to this trace, or to all of these."""
    token = _current.set(traces if isinstance(traces, str) else ",".join(dict.fromkeys(filter(None, traces))))
    try:
        yield
    finally:
        _current.reset(token)
