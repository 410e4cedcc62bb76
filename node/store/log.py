"""The log of a store: every envelope enters by `merge`, and every committed entry has a sequence number.

Each reader that follows the log has a cursor of its own.
"""

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

from node.store.change_listeners import ChangeListeners
from protocols.envelope import Envelope, Notice
from protocols.log_lineage import LogPosition

IDEMPOTENCY_MS = 24 * 3600 * 1000
"""How long an idempotency key is remembered, and a staged envelope kept, at least."""


class Origin(StrEnum):
    """How a log entry came here."""

    LOCAL = "local"
    PEER = "peer"
    SYNC = "sync"


class Incoming(NamedTuple):
    """One verified envelope to merge, or the notice of one whose content stays elsewhere.

    `holders` are the peers that do not have it yet: the merge adds a hint for each, in the same transaction.
    `acknowledged` are the peers that have it. Both are for local writes; wanted = holders + acknowledged.
    """

    item: Envelope | Notice
    origin: Origin
    holders: tuple[str, ...] = ()
    acknowledged: tuple[str, ...] = ()
    idempotency_key: str | None = None


class Merged(NamedTuple):
    """The result of merging one `Incoming`: its place in the log, and whether it was new to this store.

    For a version that was held already, `sequence` is that of its first entry and the merge changes nothing, with one
    exception: with origin LOCAL, a holder that has neither a hint nor an acknowledgement gets a hint.
    """

    sequence: int
    is_new: bool


class Change(NamedTuple):
    """One entry of the log. Sequences start at 1 and have no gap."""

    sequence: int
    digest: bytes
    key: bytes
    address: str
    version: int
    author: str
    deleted: bool
    origin: Origin
    at_ms: int


class Log(Protocol):
    """Writing envelopes to the store, and reading its log. Times are Unix milliseconds."""

    @property
    def log_id(self) -> str:
        """16 random hex digits, made at the start: a sequence number is meaningful only together with it."""
        ...

    @property
    def former_logs(self) -> tuple[LogPosition, ...]:
        """The logs of earlier runs over this store, oldest first, each with its last sequence."""
        ...

    def log_of(self, sequence: int) -> str:
        """The id of the log that this entry belongs to: the present one, or a former one."""
        ...

    @property
    def last_sequence(self) -> int:
        """The sequence of the newest committed entry; 0 when the log is empty."""
        ...

    @property
    def change_listeners(self) -> ChangeListeners:
        """Callbacks that get each key whose versions change, in the step in which the change becomes visible."""
        ...

    async def merge(self, batch: Sequence[Incoming], *, now_ms: int, deadline: float | None = None) -> list[Merged]:
        """Merge envelopes in order, the whole batch in one transaction; return once they are durable.

        Raises `CommitLate` at the deadline, on trio's clock.

        Idempotent by digest, and commutative: whatever the order of arrival, the same versions give the same heads.
        A notice whose content comes later is completed (with a log entry of its own); the reverse changes nothing. One
        whose content is here as that of another version is an envelope at once.
        Merging a staged envelope ends its staging. The caller has verified the envelopes.
        Cancelling the waiter does not undo the merge: it may still be committed.
        """
        ...

    def merge_in_background(
        self, batch: Sequence[Incoming], *, now_ms: int, peer: str,
        on_done: Callable[[list[Merged] | BaseException], None],
    ) -> None:  # fmt: skip
        """Like `merge`, for what `peer` sent, without a task that could wait: `on_done` gets the result or the error,
        once.

        `on_done` must be quick and not raise, and may be called before this returns. Peers take turns at the disk.
        Raises `Unavailable` when the store accepts no more work of this one.
        """
        ...

    def merge_without_waiting(self, batch: Sequence[Incoming], *, now_ms: int) -> list[Merged] | None:
        """Like `merge` when no wait for a disk is needed. Else it does nothing and returns None."""
        ...

    async def reissue(self, digest: bytes, replacement: Envelope, holders: tuple[str, ...], *, now_ms: int) -> Merged:
        """Replace a local write whose clock was wrong by `replacement`, in one transaction.

        The old version stays in the history (`reissued_as`), is no longer a head, and loses its hints; the new one is
        merged with hints for `holders`; `standing(old)` answers with the standing of the new one.
        """
        ...

    async def settled(self) -> None:
        """Wait until everything that was submitted before this call is committed or has failed.

        Never raises: a failed commit is reported to the callers whose writes were in it.
        """
        ...

    async def log(self, *, after: int, limit: int = 1000) -> list[Change]: ...

    async def local_writes(self, *, after: int, limit: int = 1000) -> list[Change]:
        """Like `log`, but only the first entries of local writes that were not reissued."""
        ...

    async def wait_until_grown(self, after: int) -> int:
        """Wait until `last_sequence` is greater than `after`; return it."""
        ...

    async def cursor(self, name: str) -> int:
        """The position of the log's reader of that name (0 at first)."""
        ...

    async def set_cursor(self, name: str, sequence: int) -> None:
        """Save a reader's position. Written with the next commit, at the latest within a second."""
        ...

    def cursor_names(self, prefix: str) -> list[str]:
        """The names of the saved positions that begin so."""
        ...

    async def drop_cursor(self, name: str) -> None:
        """Forget a reader's position. Written like `set_cursor`."""
        ...
