"""mDNS inbox: reads what a message says of peers, has the table judge it, and reports what has changed."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import inf

from discovery.mdns_records import BadRecord, RecordFault, is_instance_of, read_record
from discovery.mdns_table import Change, Found, MdnsTable

log = logging.getLogger(__name__)

LOG_AGAIN_SECONDS = 60.0
_UNLOGGED = (RecordFault.NOT_USABLE, RecordFault.QUEUE_FULL)


@dataclass(frozen=True, slots=True)
class ServiceRecord:
    """A DNS record about an instance of the service: a PTR record that names it, or one with its TXT data."""

    name: str
    """Of the instance, in lower case."""
    ttl: int
    """0 is a goodbye."""
    text: bytes | None = None


@dataclass(slots=True, kw_only=True)
class MdnsCounts:
    """Messages since the node started. Written by the responder's thread, read by any."""

    questions: int = 0
    """Those that this node sent."""
    heard: int = 0
    """Messages about peers from other nodes."""
    own: int = 0
    """Messages of this node itself that came back: they do where multicast works."""


class MdnsInbox:
    """`own_name` is this node's instance. `report` returns False when it cannot take a change now."""

    def __init__(
        self, table: MdnsTable, *, service: str, own_name: str, report: Callable[[Change], bool], counts: MdnsCounts
    ) -> None:
        self._table = table
        self._service = service
        self._own_name = own_name
        self._report = report
        self._counts = counts
        self._logged_at: dict[RecordFault, float] = {}

    def read(self, answers: Iterable[ServiceRecord], sender: str, now: float) -> bool:
        """Read the answers in one message. False: nothing in it is about the service, or its sender is not heard."""
        texts: dict[str, list[bytes]] = {}
        ended = set()
        for answer in answers:
            if is_instance_of(answer.name, self._service):
                data = texts.setdefault(answer.name, [])
                if not answer.ttl:
                    ended.add(answer.name)
                elif answer.text is not None:
                    data.append(answer.text)
        if not texts:
            return False
        if self._own_name in texts:
            self._counts.own += 1
            return True
        if not self._table.admit(sender, now):
            return False
        self._counts.heard += 1
        for name, data in texts.items():
            try:
                if name in ended:
                    self.hand_over(self._table.ended(name, sender, now))
                elif data:
                    self.hand_over(self._table.heard(name, read_record(data), sender, now))
            except BadRecord as bad:
                self._drop(bad.fault, sender, now)
        return True

    def hand_over(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if not self._report(change):
                self._table.faults[RecordFault.QUEUE_FULL] += 1
                if isinstance(change, Found):
                    self._table.unreported(change.record.peer)

    def failed(self, error: Exception, sender: str, now: float) -> None:
        """A message could not be read at all."""
        log.debug("a message of %s could not be read", sender, exc_info=error)
        self._drop(RecordFault.MALFORMED, sender, now)

    def _drop(self, fault: RecordFault, sender: str, now: float) -> None:
        """Count a record, with a line a minute for each fault."""
        self._table.faults[fault] += 1
        if fault in _UNLOGGED or now - self._logged_at.get(fault, -inf) < LOG_AGAIN_SECONDS:
            return
        self._logged_at[fault] = now
        count = self._table.faults[fault]
        log.warning("an mDNS record of %s is dropped: %s (%d since the start)", sender, fault.value, count)
