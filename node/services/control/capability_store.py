"""Capability store: what this node offers to others, and the only way to change it.

The configuration names capabilities; a list that was set at run time replaces them as a whole, and holds over restarts,
because the store keeps it in a mark. Each change is in the audit log before it has any effect.
"""

import json
import logging
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256

import trio

from node.services.control.audit import Audit
from node.store.marks import Marks
from protocols.capabilities import Capability, ordered, parse, text_of
from protocols.errors import BzzzError, Conflict

log = logging.getLogger(__name__)

MARK = "capabilities"


class CapabilityStore:
    """`configured` are the capabilities of the configuration, as texts."""

    def __init__(self, configured: Iterable[str], audit: Audit, marks: Marks) -> None:
        self._audit = audit
        self._marks = marks
        self._configured = ordered(map(parse, configured))
        self._set_here = self._restored()
        self._listeners: list[Callable[[], None]] = []
        self._lock = trio.Lock()

    @property
    def current(self) -> tuple[Capability, ...]:
        """What this node offers now."""
        return self._configured if self._set_here is None else self._set_here

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(map(text_of, self.current))

    @property
    def is_set_here(self) -> bool:
        """Whether they were set at run time, and those of the configuration wait beneath."""
        return self._set_here is not None

    @property
    def revision(self) -> str:
        """Names what this node offers now: a change may demand that it is still so."""
        return sha256("\n".join(self.texts).encode()).hexdigest()[:16]

    def subscribe(self, on_change: Callable[[], None]) -> None:
        """Register a callback that is called after a change; it is quick and does not raise."""
        self._listeners.append(on_change)

    async def change(self, texts: Sequence[str] | None, *, author: str, reason: str, revision: str = "") -> None:
        """Offer these from now on; None: what is configured. `revision` is that of the list the caller has seen.

        Raises `InvalidPayload`, `Conflict` when they were changed since, `StorageFull` or `Unavailable`; then nothing
        changed.
        """
        wanted = None if texts is None else ordered(map(parse, texts))
        async with self._lock:
            if revision not in ("", self.revision):
                raise Conflict("the capabilities were changed since they were read: read them again", revision=revision)
            if wanted != self._set_here:
                names = None if wanted is None else [text_of(each) for each in wanted]
                await self._audit.append(
                    "capabilities.changed", author=author, reason=reason, details={"capabilities": names}
                )
                self._marks.set_mark(MARK, json.dumps(names))
            self._put_in_force(self._configured, wanted)

    async def reload(self, configured: Iterable[str], *, author: str) -> None:
        """Take what the configuration names now. Raises like `change`."""
        now = ordered(map(parse, configured))
        async with self._lock:
            if now != self._configured:
                details = {"configured": [text_of(each) for each in now]}
                await self._audit.append("capabilities.changed", author=author, details=details)
                self._put_in_force(now, self._set_here)

    def _put_in_force(self, configured: tuple[Capability, ...], set_here: tuple[Capability, ...] | None) -> None:
        before = self.current
        self._configured, self._set_here = configured, set_here
        if self.current != before:
            for on_change in self._listeners:
                on_change()

    def _restored(self) -> tuple[Capability, ...] | None:
        """What was set at run time before this start; None when nothing was, or when it cannot be read."""
        try:
            names = json.loads(self._marks.mark(MARK) or "null")
            return None if names is None else ordered(map(parse, names))
        except (ValueError, TypeError, AttributeError, BzzzError) as error:
            log.error("the capabilities that were set before this start cannot be read (%s): those of the "
                      "configuration are in force", error)  # fmt: skip
            return None
