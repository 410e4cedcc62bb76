"""Log lineage: the logs that one store has had, by which it is known whether a store lost entries.

A log is what one run of a node appends to its store. Each run begins a log with a new random id, and its sequences go
on after the last one of the log before: so (log id, sequence) names one entry for ever. Two nodes that run on copies of
one store, or one node before and after its store was replaced by an older copy, append to logs with different ids. The
lineage of a store is its logs in their order, each with its last sequence. A peer that knows an entry which is not in
the lineage knows that the store lacks it, and what came after it.

Source: the leader epochs of Apache Kafka (KIP-101), which find in the same way where two copies of a log part.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

KEPT_MAX: Final = 1024
"""Former logs that a store remembers: the latest."""
SENT_MAX: Final = 128
"""Former logs that a hello names: the latest. Without entries, older ones are not remembered either."""


class LogPosition(NamedTuple):
    """One entry of a log. Of a former log: its last entry, whose sequence may be that of the log before."""

    log_id: str
    sequence: int


def includes(log_id: str, former: Iterable[LogPosition], known: LogPosition) -> bool:
    """Whether a store that appends to the log `log_id` now, after `former` ones, has an entry that a peer knows of.

    It has all of the log that it appends to now, because a log ends with its run. Sequence 0 is no entry.
    """
    if known.log_id == log_id or not known.sequence:
        return True
    return any(log.log_id == known.log_id and known.sequence <= log.sequence for log in former)


def log_of(log_id: str, former: Sequence[LogPosition], sequence: int) -> str:
    """The id of the log that has this entry: `log_id` is the present one."""
    if not former or sequence > former[-1].sequence:
        return log_id
    return next(log.log_id for log in former if sequence <= log.sequence)


def with_ended(former: Sequence[LogPosition], ended: LogPosition) -> tuple[LogPosition, ...]:
    """The former logs, oldest first, when one more has ended. Those that are of no use any more are left out."""
    logs = (*former, ended)
    older, newer = logs[:-SENT_MAX], logs[-SENT_MAX:]
    last = 0
    useful: list[LogPosition] = []
    for log in older:
        if log.sequence > last:
            useful.append(log)
        last = log.sequence
    return (*useful, *newer)[-KEPT_MAX:]
