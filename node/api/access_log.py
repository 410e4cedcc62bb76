"""Access log: a line for each request, at level debug, or a warning when this node failed to answer it.

A path that is polled warns when its status is another than before. Of other failures of one path and status the first
in each `WARN_SECONDS` warns, with the number of those before it that did not: a node that is too busy for a thousand
callers is not to be kept busy by its log.
"""

import logging
from math import inf
from typing import Final

import trio

POLLED: Final = ("/health", "/ready")
WARN_SECONDS: Final = 1.0
KINDS_MAX: Final = 256
"""Paths and statuses whose failures are counted: a path may have a part that the client made up."""

_log = logging.getLogger("bzzz.api.access")


class AccessLog:
    """Of one API."""

    def __init__(self) -> None:
        self._polled = dict.fromkeys(POLLED, 0)
        """The last status of each path that is polled."""
        self._failed: dict[tuple[str, int], tuple[float, int]] = {}
        """By path and status: when a failure warned last, and how many did not since."""

    def note(self, method: str, path: str, status: int, ms: float) -> None:
        """A request was answered. Its query and headers, which may hold secrets, are not logged."""
        failures = self._failures_to_warn_of(path, status)
        level = logging.WARNING if failures else logging.DEBUG
        if not _log.isEnabledFor(level):
            return
        fields = {"method": method, "path": printable_path(path), "status": status, "ms": round(ms, 3)}
        text = "%(method)s %(path)s: %(status)d"
        if failures > 1:
            fields["more"] = failures - 1
            text += ", and %(more)d more since the last such line"
        _log.log(level, text, fields, extra=fields)

    def _failures_to_warn_of(self, path: str, status: int) -> int:
        """How many failures a warning now stands for; 0: there is none."""
        if path in self._polled:
            before = self._polled[path]
            if status == 200 or status >= 500:
                self._polled[path] = status
            return int(status >= 500 and status != before)
        if status < 500:
            return 0
        now = trio.current_time()
        warned_at, more = self._failed.get((path, status), (-inf, 0))
        if now < warned_at + WARN_SECONDS:
            self._failed[path, status] = warned_at, more + 1
            return 0
        if len(self._failed) >= KINDS_MAX:
            self._failed.clear()
        self._failed[path, status] = now, 0
        return more + 1


def printable_path(path: str) -> str:
    """A path for the log: one line of ASCII, at most 200 characters."""
    return ascii(path)[1:-1][:200]
