"""Peer log: log lines about peers that come, go or are suspect, limited in their rate so that they cannot flood it."""

import logging

import trio

from protocols.policy.token_bucket import TokenBucket

log = logging.getLogger(__name__)

LINES_AT_ONCE = 1000.0
"""Lines that may be written at once;"""
LINES_PER_SECOND = 1.0
"""and in the long run."""


class PeerLog:
    """Lines above the limit are written at level debug, and counted in the next line that is not."""

    def __init__(self) -> None:
        self._limit: TokenBucket | None = None
        self._suppressed = 0

    def info(self, line: str, *arguments: object) -> None:
        now = trio.current_time()
        limit = self._limit = self._limit or TokenBucket(rate=LINES_PER_SECOND, burst=LINES_AT_ONCE, now=now)
        if limit.take(0.0, now) > 0.0:
            self._suppressed += 1
            log.debug(line, *arguments)
            return
        limit.take(1.0, now)
        if self._suppressed:
            line, arguments = f"{line} (and %d such lines before it)", (*arguments, self._suppressed)
            self._suppressed = 0
        log.info(line, *arguments)
