"""Audit log: appends the acts of operators, each signed and chained to the one before.

An act is in the log before it has any effect. The author is what the caller said: on loopback no proof is asked for,
and elsewhere a client with the API's token may give any name.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import trio

from node.services.control.audit_file import AuditStorage
from node.store.marks import Marks
from protocols import audit_log
from protocols.audit_log import GENESIS, ROTATED, AuditEntry, ChainBroken
from protocols.errors import BzzzError, Conflict
from protocols.keys import PrivateKey

log = logging.getLogger(__name__)

PAGE = 1000
LOOK_SECONDS = 0.5
ROTATE_BYTES = 16 << 20
"""A file of this size is rotated before the next entry."""
_LOG = "log"
"""In the state: the id of the store's log."""
MARK = "audit"
"""The name of the mark with the last line: a start can tell by it that the log lost lines, and knows their state."""


class Audit:
    """One for each node. `state` is that of the last entry, or {} when that entry cannot be trusted.

    Each entry names the log of the store (`log_id`) at that time; `last_log` is what the last before this start named.
    The last line is kept in `marks` as well. Where the audit log has less than that, the mark counts: what was set at
    run time stays in force, and the chain goes on after the missing entries, so that each reader sees them missing.
    """

    def __init__(
        self,
        storage: AuditStorage,
        key: PrivateKey,
        *,
        now_ms: Callable[[], int],
        marks: Marks | None = None,
        log_id: str = "",
        rotate_bytes: int = ROTATE_BYTES,
    ) -> None:
        self._marks = marks if storage.is_kept else None
        self._rotate_bytes = rotate_bytes
        self._storage = storage
        self._key = key
        self._log_id = log_id
        self._now_ms = now_ms
        self._lock = trio.Lock()
        self._head = GENESIS if storage.last is None else audit_log.hash_of(storage.last)
        self._sequence = storage.count
        self._fault = ""
        self._failure = ""
        self._lost = ""
        self.state: Mapping[str, Any] = self._last_state()
        self.last_log = str(self.state.get(_LOG, ""))
        self._compare_with_mark()

    @property
    def sequence(self) -> int:
        """How many entries there are."""
        return self._sequence

    @property
    def head(self) -> str:
        """The hash of the last line. A reader that noted it can find out later that lines were cut off."""
        return self._head

    @property
    def faults(self) -> tuple[str, ...]:
        """What is wrong with the log, in words."""
        found = (self._fault or self._storage.gap, self._lost, "" if self._lost else self._failure)
        return tuple(fault for fault in found if fault)

    @property
    def is_lost(self) -> bool:
        """The log was removed or changed by another program, and is not written any more."""
        return bool(self._lost)

    async def guard_file(self) -> None:
        """Notice within a second that another program removed or changed the log. Until cancelled."""
        while True:
            await trio.sleep(LOOK_SECONDS)
            lost = self._storage.look()
            if lost and lost != self._lost:
                log.error("%s", lost)
            self._lost = lost

    def _last_state(self) -> Mapping[str, Any]:
        if self._storage.last is None:
            return {}
        try:
            entry = audit_log.read(self._storage.last)
            if entry.node != self._key.peer_id:
                raise ChainBroken(f"it is of another node ({entry.node})")
        except ChainBroken as broken:
            self._fault = (
                f"the last line of the audit log ({self._sequence}) cannot be trusted: {broken}; what was set at run "
                "time before is not in force (bzzz audit verify)"
            )
            return {}
        self._sequence = max(self._sequence, entry.sequence)
        return entry.state if isinstance(entry.state, dict) else {}

    def _compare_with_mark(self) -> None:
        """Find out whether the log lost lines that this node wrote."""
        marked = self._marks.mark(MARK) if self._marks is not None else None
        if marked is None:
            return
        line = marked.encode()
        try:
            entry = audit_log.read(line)
        except ChainBroken:
            return
        if entry.node != self._key.peer_id or entry.sequence < self._sequence:
            return
        if entry.sequence == self._sequence and audit_log.hash_of(line) == self._head:
            return
        missing = entry.sequence - self._sequence
        what = (
            f"lacks its last {missing} of {entry.sequence} entries"
            if missing
            else "is not the one that this node wrote"
        )
        self._fault = (
            f"the audit log {what}: it was removed, cut off or replaced; what they set at run time is in force all the "
            "same (bzzz audit verify)"
        )
        self._sequence, self._head = entry.sequence, audit_log.hash_of(line)
        self.state = entry.state if isinstance(entry.state, dict) else {}

    async def rotate(self, *, author: str, reason: str = "") -> str:
        """Begin a new file; return the name that the one before has now. Raises like `append`, and `Conflict`."""
        async with self._lock:
            if self._storage.begins_file:
                raise Conflict("the audit log has no entries since it was rotated last")
            return await self._rotate(author, reason)

    async def _rotate(self, author: str, reason: str) -> str:
        name = await self._storage.rotate()
        log.info("the audit log goes on in a new file; the one before is %s", name)
        await self._append(ROTATED, author, reason, {"file": name}, self.state)
        return name

    async def append(
        self,
        act: str,
        *,
        author: str,
        reason: str = "",
        details: Mapping[str, Any] | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> AuditEntry:
        """Append an act; it is durable on return. Without `state` the last one stays.

        Raises `StorageFull` or `Unavailable`, and then nothing was written.
        """
        async with self._lock:
            if self._storage.size_bytes >= self._rotate_bytes:
                await self._rotate("the node", f"it had {self._storage.size_bytes} bytes")
            elif self._storage.begins_file and self._storage.count and not self._fault:  # a crash during the rotation
                await self._append(ROTATED, "the node", "", {}, self.state)
            return await self._append(act, author, reason, details or {}, self.state if state is None else state)

    async def _append(
        self, act: str, author: str, reason: str, details: Mapping[str, Any], state: Mapping[str, Any]
    ) -> AuditEntry:
        if self._log_id:
            state = {**state, _LOG: self._log_id}
        entry = AuditEntry(
            sequence=self._sequence + 1,
            at_ms=self._now_ms(),
            act=act,
            author=author,
            reason=reason,
            details=details,
            state=state,
            node=self._key.peer_id,
            previous=self._head,
        )
        line = audit_log.seal(self._key, entry)
        try:
            await self._storage.append(line)
        except BzzzError as error:
            self._failure = error.message
            self._lost = self._storage.look()
            raise
        self._failure = self._lost = ""
        self._sequence, self._head, self.state = entry.sequence, audit_log.hash_of(line), entry.state
        if self._marks is not None:
            self._marks.set_mark(MARK, line.decode("ascii"))
        return entry

    async def lines(self, *, after: int = 0, limit: int = PAGE) -> list[bytes]:
        """Lines as they are stored, so that a reader can check them. Raises `Unavailable`."""
        return await self._storage.lines(after=after, limit=min(limit, PAGE))
