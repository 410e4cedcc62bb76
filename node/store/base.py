"""What a store is: one door in (`merge`), many readers out.

Every accepted envelope enters by `merge`, is committed, gets the next sequence number of this node's log, and only
then is seen by anyone. Two stores keep this contract, `store.py` (a node's) and `memory.py` (its twin for tests,
the simulator and throw-away nodes); `tests/contract/test_store.py` is run over both.

Who calls: the backends, the services and the API, all on the trio thread. Methods marked `async` may wait for the
disk; plain ones answer from memory at once. Errors: `StorageFull` when there is no room, `Unavailable` when the
disk failed otherwise; nothing of a failed call is kept, nothing that was acknowledged before is lost, and reads
go on. `StoreRefused` only while opening.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Protocol

import trio

from node.store.change_listeners import ChangeListeners
from protocols.envelope import Envelope, Notice

IDEMPOTENCY_MS = 24 * 3600 * 1000
"""How long an idempotency key is remembered, and a staged envelope kept, at least."""


class StoreRefused(Exception):
    """The file cannot be this node's store (damaged, foreign, newer, locked); the message says which and what to do.

    Raised while opening only, and the file is left exactly as it was.
    """


class Origin(StrEnum):
    """How a log entry came here."""

    LOCAL = "local"
    PEER = "peer"
    SYNC = "sync"


class Incoming(NamedTuple):
    """One verified envelope (or the notice of one whose content stays elsewhere) at the door.

    `holders` are the peers that are owed it: one hint each, in the transaction of the merge. `acknowledged` are
    those that already have it. Both are for local writes; wanted = holders + acknowledged.
    """

    item: Envelope | Notice
    origin: Origin
    holders: tuple[str, ...] = ()
    acknowledged: tuple[str, ...] = ()
    idempotency_key: str | None = None


class Merged(NamedTuple):
    """What became of one `Incoming`: where it stands in the log, and whether it was new to this store.

    For what was held already, `sequence` is that of its first entry and nothing else was changed, save that holders
    which neither have acknowledged nor are owed it are owed it now when the origin is LOCAL.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version as the history lists it: all but its content."""

    address: str
    digest: bytes
    version: int
    author: str
    deleted: bool
    parents: tuple[bytes, ...]
    content_type: str
    size_bytes: int
    is_held: bool
    """False when only the notice is here and the content is elsewhere."""
    is_head: bool
    reissued_as: bytes | None = None
    """The version that stands in for this one, when its author's clock was found to be wrong."""


class Standing(NamedTuple):
    """How durable a local write is: what a receipt is built from."""

    sequence: int
    digest: bytes
    acknowledged: tuple[str, ...]
    wanted: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """One holder that is owed one local write."""

    holder: str
    sequence: int
    digest: bytes
    key: bytes
    address: str
    attempts: int
    next_try_ms: int
    """0: at once."""
    refusal: str
    """The last refusal in words, or ''."""
    is_refused: bool
    """True: refused for good, in quarantine; it is kept and shown, and not tried again by itself."""
    at_ms: int
    """When the write was merged."""


@dataclass(frozen=True, slots=True)
class Pending:
    """What is still owed: hints that are to be paid, and those in quarantine."""

    count: int
    oldest_at_ms: int | None
    refused: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStats:
    """How much there is in a store, and what became of its writing since it was opened."""

    versions: int
    """Versions held or known by their notice."""
    size_bytes: int | None
    """Of its files; None where there is none."""
    commits: int
    commit_failures: int
    at_risk: int
    """Local writes that somebody is still owed: fewer have them than should."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A node of this swarm that we have shaken hands with, or this store remembers to have."""

    peer: str
    name: str
    addresses: tuple[str, ...]
    first_seen_ms: int
    last_seen_ms: int
    labels: dict[str, str] = field(default_factory=dict)


class Store(Protocol):
    """The contract. Digests are 32 bytes, keys the 49 ASCII bytes of DESIGN section 4, times Unix milliseconds."""

    # -- identity and life ------------------------------------------------------------------------------------

    @property
    def log_id(self) -> str:
        """16 random hex digits, made with the store: a sequence means something only beside it."""
        ...

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Commit what comes in until cancelled; then commit what was handed in, and close. Started before any use."""
        ...

    @property
    def last_failure(self) -> str:
        """What the last commit failed with, in words; '' when it succeeded (or there was none yet)."""
        ...

    def measures(self) -> StoreStats:
        """For whoever watches it; quick, though it asks the file system for sizes."""
        ...

    @property
    def committing_since(self) -> float | None:
        """Since when, on trio's clock, the disk has owed the commit that is under way; None when there is none."""
        ...

    @property
    def failures(self) -> int:
        """How many commits have failed since it was opened."""
        ...

    # -- the one door -----------------------------------------------------------------------------------------

    async def merge(self, batch: Sequence[Incoming], *, now_ms: int) -> list[Merged]:
        """Take envelopes in, in order, all of the batch in one transaction; return once they are durable.

        Idempotent by digest, and commutative: whatever the order of arrival, the same versions give the same heads.
        A notice whose content comes later is filled in (with a log entry of its own); the reverse changes nothing.
        A staged envelope that is merged is staged no longer. The caller has verified the envelopes.
        Cancelling the waiter does not undo the merge: it may still be committed.
        """
        ...

    def merge_in_background(
        self, batch: Sequence[Incoming], *, now_ms: int, told: Callable[[list[Merged] | BaseException], None]
    ) -> None:
        """Like `merge`, for whoever has no task that could wait: `told` is called once, with what it came to or the
        error. It must be quick and not raise, and may be called before this returns. Raises `Unavailable` when nothing
        can be handed in.
        """
        ...

    def merge_without_waiting(self, batch: Sequence[Incoming], *, now_ms: int) -> list[Merged] | None:
        """Like `merge`, where no disk has to be waited for; None, and nothing done, where one has."""
        ...

    async def reissue(self, digest: bytes, replacement: Envelope, holders: tuple[str, ...], *, now_ms: int) -> Merged:
        """Put `replacement` in the place of a local write whose clock was wrong, in one transaction.

        The old version stays in the history (`reissued_as`), is no head any more, and its hints are gone; the new one
        is merged with hints for `holders`; `standing(old)` answers with the new one's.
        """
        ...

    async def settled(self) -> None:
        """Wait until it is decided what becomes of all that was handed in before: it is committed, or has failed.

        Never raises: that a commit failed is told to who handed in what was in it.
        """
        ...

    # -- versions ---------------------------------------------------------------------------------------------

    async def heads(self, key: bytes) -> tuple[Envelope | Notice, ...]:
        """The heads of a key, the latest in the total order first; () when nothing is known of it.

        Answers without a checkpoint when it is in memory.
        """
        ...

    async def by_digest(self, digest: bytes) -> Envelope | Notice | None:
        """One version, or None when this store does not know it."""
        ...

    async def versions(self, key: bytes, *, after: int = 0, limit: int = 1000) -> list[Version]:
        """The versions of a key in the total order, the first one first, from the `after`-th on (counted from 0)."""
        ...

    async def stand_in(self, digest: bytes) -> bytes:
        """The version that was issued, at last, for one whose author's clock was found to be wrong; else itself."""
        ...

    async def count_versions(self, key: bytes) -> int: ...

    async def idempotent(self, idempotency_key: str) -> bytes | None:
        """The digest that was merged under this key, if any."""
        ...

    def latest_version(self) -> int:
        """The greatest version ever merged here (0: none): where a hybrid logical clock starts from."""
        ...

    # -- the log ----------------------------------------------------------------------------------------------

    @property
    def change_listeners(self) -> ChangeListeners:
        """Told of each key whose versions change, in the step in which that becomes visible here."""
        ...

    @property
    def last_sequence(self) -> int:
        """The sequence of the newest committed entry; 0 when the log is empty."""
        ...

    async def log(self, *, after: int, limit: int = 1000) -> list[Change]: ...

    async def local_writes(self, *, after: int, limit: int = 1000) -> list[Change]:
        """Like `log`, but only the first entries of local writes that were not reissued."""
        ...

    async def wait_until_grown(self, after: int) -> int:
        """Wait until `last_sequence` is greater than `after`; answer it."""
        ...

    async def cursor(self, name: str) -> int:
        """Where the reader of that name stands (0 at first)."""
        ...

    async def set_cursor(self, name: str, sequence: int) -> None:
        """Remember where a reader stands. Written with the next commit, and at the latest within a second."""
        ...

    # -- hints ------------------------------------------------------------------------------------------------

    async def due_hints(self, holder: str, *, after: int = 0, limit: int = 64, now_ms: int) -> list[Hint]:
        """The hints for a holder that are due, by ascending sequence, after that sequence."""
        ...

    def next_hint_due(self, holder: str) -> int | None:
        """When the next hint for a holder is due (0: now), in Unix milliseconds; None when nothing is owed to it."""
        ...

    def hint_counts(self) -> dict[str, int]:
        """How many hints are to be paid to each holder that is owed any; those in quarantine left out."""
        ...

    def acknowledge(self, holder: str, sequences: Iterable[int]) -> None:
        """The holder has these. Counts at once; durable with the next commit, at the latest within a second.

        A crash before that costs one more payment of the hint, which is idempotent.
        """
        ...

    def postpone_hint(self, holder: str, sequence: int, *, next_try_ms: int, refusal: str) -> None:
        """Count an attempt and park this hint until then. Durable like `acknowledge`."""
        ...

    async def quarantine_hint(self, holder: str, sequence: int, *, refusal: str) -> None:
        """Put a hint in quarantine: refused for good, shown, kept."""
        ...

    async def retry_quarantined(self) -> int:
        """Take every hint out of quarantine and make it due; answer how many."""
        ...

    async def add_hints(self, debts: Iterable[tuple[int, str]]) -> int:
        """Add hints (sequence of a local write, holder); those that are owed or acknowledged already are passed over.

        Answers how many are new. Raises the write's `wanted` for each.
        """
        ...

    async def drop_holder(self, holder: str) -> list[int]:
        """A holder was forgotten: drop its hints, also from `wanted`; answer the sequences, so that others are owed."""
        ...

    def pending(self) -> Pending: ...

    async def hints(self, *, is_refused: bool | None = None, limit: int = 1000) -> list[Hint]:
        """The hints as a person asks for them, oldest first."""
        ...

    async def standing(self, *, digest: bytes | None = None, sequence: int | None = None) -> Standing | None:
        """How durable a local write is, by digest or by sequence; None when it is no local write of this log."""
        ...

    async def replicated(self, digest: bytes, count: int) -> Standing:
        """Wait until `count` holders have acknowledged a local write (at once when they have)."""
        ...

    # -- staged envelopes -------------------------------------------------------------------------------------

    async def stage(self, envelope: Envelope, *, idempotency_key: str | None = None, now_ms: int) -> None:
        """Keep an envelope durably that is not a version yet: no head, no hint, not in the log.

        It is kept until it is merged or unstaged, and for `IDEMPOTENCY_MS` at least.
        """
        ...

    async def staged(self, digest: bytes) -> Envelope | None: ...

    async def staged_under(self, idempotency_key: str) -> Envelope | None:
        """What was staged last under this key, if it is still there."""
        ...

    async def unstage(self, digest: bytes) -> None: ...

    # -- members and providers --------------------------------------------------------------------------------

    def members(self) -> tuple[Member, ...]:
        """Every member that is remembered, by peer id."""
        ...

    async def save_member(self, member: Member) -> None:
        """Remember a member, or what is new about it."""
        ...

    async def forget_member(self, peer: str) -> None: ...

    async def provide(self, key: bytes, peer: str, *, expires_ms: int) -> None:
        """Remember that a peer provides a key until then."""
        ...

    async def providers(self, key: bytes, *, now_ms: int) -> list[str]: ...
