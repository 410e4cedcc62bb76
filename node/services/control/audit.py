"""Audit log: appends the acts of operators, each signed and chained to the one before.

An act is in the log before it has any effect. The author is what the caller said: on loopback no proof is asked for,
and elsewhere a client with the API's token may give any name.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import trio

from node.services.control.audit_file import AuditStorage
from protocols import audit_log
from protocols.audit_log import GENESIS, ChainBroken, Entry
from protocols.errors import BzzzError
from protocols.keys import PrivateKey

log = logging.getLogger(__name__)

PAGE = 1000
LOOK_SECONDS = 0.5


class Audit:
    """One for each node. `state` is that of the last entry, or {} when that entry cannot be trusted."""

    def __init__(self, storage: AuditStorage, key: PrivateKey, *, now_ms: Callable[[], int]) -> None:
        self._storage = storage
        self._key = key
        self._now_ms = now_ms
        self._lock = trio.Lock()
        self._head = GENESIS if storage.last is None else audit_log.hash_of(storage.last)
        self._sequence = storage.count
        self._fault = ""
        self._failure = ""
        self._lost = ""
        self.state: Mapping[str, Any] = self._last_state()

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
        return tuple(fault for fault in (self._fault, self._lost, "" if self._lost else self._failure) if fault)

    @property
    def is_lost(self) -> bool:
        """The log was removed or changed by another program, and is not written any more."""
        return bool(self._lost)

    async def watch(self) -> None:
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

    async def append(
        self,
        act: str,
        *,
        author: str,
        reason: str = "",
        details: Mapping[str, Any] | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> Entry:
        """Append an act; it is durable on return. Without `state` the last one stays.

        Raises `StorageFull` or `Unavailable`, and then nothing was written.
        """
        async with self._lock:
            entry = Entry(
                sequence=self._sequence + 1,
                at_ms=self._now_ms(),
                act=act,
                author=author,
                reason=reason,
                details=details or {},
                state=self.state if state is None else state,
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
            return entry

    async def lines(self, *, after: int = 0, limit: int = PAGE) -> list[bytes]:
        """Lines as they are stored, so that a reader can check them. Raises `Unavailable`."""
        return await self._storage.lines(after=after, limit=min(limit, PAGE))
