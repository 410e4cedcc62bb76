"""Logs: structured, one line for each event, on standard error; text for people, JSON for machines.

Records of libraries, through Python's own `logging`, are written in the same form. Standard output stays free for the
output of commands. Values under names of secrets are masked. What cannot be printed is shown as its escape, for text
of a peer may hold escape sequences and line breaks. A record of a call has the trace of the call
(`node/trace.py`) under `trace`, on every node that the call touches.
"""

import contextlib
import logging
import sys
from collections.abc import MutableMapping
from io import StringIO
from typing import Any, TextIO, cast

import structlog
from structlog.typing import ExcInfo, Processor

from node import terminal, trace
from protocols.printable import printable, printable_lines

_SECRET_NAMES = ("token", "authorization", "password", "secret", "private_key")
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_CHATTY = ("libp2p", "asyncio", "urllib3", "zeroconf", "multiaddr")


def configure(form: str, level: str) -> None:
    """Set up structlog and `logging`, for `text` or `json`, from `level` on. Once in a process, before the first
    record.
    """
    colors = terminal.has_colors(sys.stderr)
    structlog.configure(
        processors=[*_processors(form), _render(form, colors)],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _LenientStream(sys.stderr))),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(_LenientStream(sys.stderr))
    handler.setFormatter(formatter(form, colors=colors))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(_LEVELS[level])
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(_LEVELS[level], logging.WARNING))


def formatter(form: str, *, colors: bool = False) -> logging.Formatter:
    """The formatter of records of Python's own `logging`. Each entry of `extra` becomes a field."""
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *_processors(form)],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _render(form, colors)],
    )


def _processors(form: str) -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        _with_trace,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _without_secrets,
        structlog.processors.format_exc_info if form == "json" else _pass,
        structlog.processors.UnicodeDecoder(),
        _printable if form == "text" else _pass,  # JSON escapes by itself
    ]


def _render(form: str, colors: bool) -> Processor:
    if form == "json":
        return structlog.processors.JSONRenderer()
    return structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=0, exception_formatter=_write_traceback)


def _write_traceback(stream: TextIO, exc_info: ExcInfo) -> None:
    """A traceback without local variables, which other formatters print and which may be secrets; printable."""
    text = StringIO()
    structlog.dev.plain_traceback(text, exc_info)
    stream.write(printable_lines(text.getvalue()))


class _LenientStream:
    """A stream that ignores errors: a log whose reader has gone away must not end the node."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


def _pass(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return event


def _with_trace(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if current := trace.current():
        event["trace"] = current
    return event


def _printable(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Text in a record may be a peer's: it is shown without control characters, and without line breaks."""
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = printable(value)
    return event


def _without_secrets(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name in event:
        if any(secret in name.lower() for secret in _SECRET_NAMES):
            event[name] = "********"
    return event
