"""The store in memory: for tests, the simulator and nodes that keep nothing on a disk.

Plain dicts and lists. Without a disk no call waits: each is one step for all other tasks, and takes a microsecond or
two. With `before_commit`, writes wait and may fail where a disk's commit would: this is how the simulator makes disks
slow, stalled and full, see `commits.py`.

The same object may be run again after its `run` was cancelled: that is a restart with its disk. Deferred writes
(acknowledgements) survive such a restart, which the contract allows and does not promise.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from copy import deepcopy
from functools import partial
from itertools import islice
from typing import NamedTuple

from node.store.base import StoreStats
from node.store.change_listeners import ChangeListeners
from node.store.completion import CallbackCompletion
from node.store.damage import Damage
from node.store.hints import Hint, OwedWrite, Pending, Standing
from node.store.log import IDEMPOTENCY_MS, Change, Incoming, Merged, Origin
from node.store.marks import UNPROVED_MARK
from node.store.memory.hints import HintTable
from node.store.memory.records import MemoryRecords
from node.store.memory.versions import VersionTable
from node.store.signal import Signal
from node.store.versions import HEADS_MAX, HeldContent, Version, VersionRef
from protocols.envelope import Envelope, Notice
from protocols.errors import NotFound, StorageFull, Unavailable
from protocols.log_lineage import LogPosition, log_of, with_ended

_LOCAL = Origin.LOCAL


_ON_DISK = (
    "former_logs", "last_sequence", "_marks", "_digests", "_origins", "_times", "_sequences", "_completed", "_adopted",
    "_cursors", "_idempotent", "_versions", "_hints", "_staged", "_members", "_member_logs",
)  # fmt: skip
"""What a copy of a store has of it."""


class _Staged(NamedTuple):
    envelope: Envelope
    idempotency_key: str | None
    at_ms: int


class MemoryStore(MemoryRecords):
    """See `base.Store`, and `CommitQueue` for `before_commit`."""

    def __init__(self, *, log_id: str, before_commit: Callable[[], Awaitable[None]] | None = None) -> None:
        super().__init__(before_commit)
        self.log_id = log_id
        self.former_logs: tuple[LogPosition, ...] = ()
        self.last_sequence = 0
        self.change_listeners = ChangeListeners()
        self.damage = Damage(is_possible=False)
        self.has_ended_in_order = False
        """Set by what ends a run in order: then the next one goes on where that ended."""
        # The log, one list a column: what is not a container costs the garbage collector nothing.
        self._digests: list[bytes] = []
        self._origins: list[Origin] = []
        self._times: list[int] = []
        self._sequences: dict[bytes, int] = {}
        """By digest: the sequence of its first entry."""
        self._completed: dict[bytes, int] = {}
        """By digest: the sequence of the entry with which its content came, when the version was known before."""
        self._adopted: set[int] = set()
        """Sequences of versions that came from a peer first and were then written here."""
        self._grown = Signal()
        self._idempotent: dict[str, tuple[bytes, int]] = {}
        self._versions = VersionTable()
        # The same dicts once more: a get takes half a microsecond, and should not look up two attributes.
        self._held = self._versions.held
        self._heads = self._versions.heads
        self._hints = HintTable()
        self._staged: dict[bytes, _Staged] = {}

    def stats(self) -> StoreStats:
        return StoreStats(
            versions=len(self._held), size_bytes=None, commits=self._commits, commit_failures=self.failures,
            at_risk=self._hints.index.pending_writes(),
        )  # fmt: skip

    def begin_log(self, log_id: str) -> None:
        """Another run begins: entries are appended to the log of this id from now on."""
        if not self.has_ended_in_order:
            self.set_mark(UNPROVED_MARK, "1")
        self.has_ended_in_order = False
        self.former_logs = with_ended(self.former_logs, LogPosition(self.log_id, self.last_sequence))
        self.log_id = log_id

    def copy(self) -> "MemoryStore":
        """A store with the same content, as a copy of a disk has: what waits for a commit is not in it. A run on it
        does not go on where one ended."""
        store = MemoryStore(log_id=self.log_id)
        shared: dict[int, object] = {id(item): item for item in self._held.values()}
        for name in _ON_DISK:
            setattr(store, name, deepcopy(getattr(self, name), shared))
        store._held, store._heads = store._versions.held, store._versions.heads
        store.set_mark(UNPROVED_MARK, "1")
        return store

    def log_of(self, sequence: int) -> str:
        return log_of(self.log_id, self.former_logs, sequence)

    async def check(self, *, after: int) -> int | None:
        return None

    # -- merging ----------------------------------------------------------------------------------------------

    def merge_without_waiting(self, batch: Sequence[Incoming], *, now_ms: int) -> list[Merged] | None:
        if self.before_commit is None and not self._queue:
            return self._merge(batch, now_ms)
        return None

    async def merge(self, batch: Sequence[Incoming], *, now_ms: int, deadline: float | None = None) -> list[Merged]:
        merged = self.merge_without_waiting(batch, now_ms=now_ms)
        if merged is not None:
            return merged
        return await self._submit(partial(self._merge, batch, now_ms), deadline=deadline)

    def merge_in_background(
        self, batch: Sequence[Incoming], *, now_ms: int, peer: str,
        on_done: Callable[[list[Merged] | BaseException], None],
    ) -> None:  # fmt: skip
        merged = self.merge_without_waiting(batch, now_ms=now_ms)
        if merged is not None:
            on_done(merged)
        else:
            self._enqueue(partial(self._merge, batch, now_ms), CallbackCompletion(on_done))

    def _merge(self, batch: Sequence[Incoming], now_ms: int) -> list[Merged]:
        merged = [self._merge_one(incoming, now_ms) for incoming in batch]
        if self._grown.has_waiters:
            self._grown.notify()
        return merged

    def _merge_one(self, incoming: Incoming, now_ms: int) -> Merged:
        item, origin, holders, acknowledged, idempotency_key = incoming
        if isinstance(item, Notice):
            item = self._versions.completed(item)
        digest = item.digest
        known = self._held.get(digest)
        if known is None:
            sequence, is_new = self._append(digest, origin, now_ms), True
            self._sequences[digest] = sequence
            self._versions.add(item)
            self.change_listeners.notify(item.key)
        else:
            sequence, is_new = self._sequences[digest], self._complete(known, item, origin, now_ms)
        if self._staged and isinstance(item, Envelope):
            self._staged.pop(digest, None)
        if origin is _LOCAL:
            if self._origins[sequence - 1] is not _LOCAL:
                self._adopted.add(sequence)
            if (holders or acknowledged) and digest not in self._versions.reissued:
                self._hints.add_write(sequence, holders, acknowledged)
            if idempotency_key is not None:
                self._remember(idempotency_key, digest, now_ms)
        return Merged(sequence, is_new)

    def _append(self, digest: bytes, origin: Origin, now_ms: int) -> int:
        self._digests.append(digest)
        self._origins.append(origin)
        self._times.append(now_ms)
        self.last_sequence += 1
        return self.last_sequence

    def _complete(self, known: Envelope | Notice, item: Envelope | Notice, origin: Origin, now_ms: int) -> bool:
        """A version that is known came again; whether its content came with it for the first time."""
        if isinstance(known, Envelope) or isinstance(item, Notice):
            return False
        self._versions.complete(item)
        self._completed[item.digest] = self._append(item.digest, origin, now_ms)
        self.change_listeners.notify(item.key)
        return True

    def _remember(self, idempotency_key: str, digest: bytes, now_ms: int) -> None:
        self._idempotent.setdefault(idempotency_key, (digest, now_ms))
        for old, (_, at_ms) in list(islice(self._idempotent.items(), 2)):
            if at_ms < now_ms - IDEMPOTENCY_MS:
                del self._idempotent[old]

    async def settled(self) -> None:
        with suppress(StorageFull, Unavailable):  # operations are carried out in the order of their submission
            await self._submit(lambda: None)

    async def reissue(self, digest: bytes, replacement: Envelope, holders: tuple[str, ...], *, now_ms: int) -> Merged:
        return await self._submit(lambda: self._reissue(digest, replacement, holders, now_ms))

    def _reissue(self, digest: bytes, replacement: Envelope, holders: tuple[str, ...], now_ms: int) -> Merged:
        versions = self._versions
        item = self._held.get(digest)
        if item is None or not self._is_local(self._sequences[digest]):
            raise NotFound(f"{digest.hex()} is no local write of this log", digest=digest.hex())
        if digest in versions.reissued:
            return Merged(self._sequences[versions.own_reissue(digest)], False)
        assert replacement.digest not in (digest, *versions.reissued), "a reissue is a version of its own"
        versions.reissue(item, replacement.digest)
        (merged,) = self._merge([Incoming(replacement, Origin.LOCAL, holders)], now_ms)
        versions.rebuild(item.key)
        self.change_listeners.notify(item.key)
        self._hints.drop_write(self._sequences[digest])
        return merged

    # -- versions ---------------------------------------------------------------------------------------------

    async def heads(self, key: bytes) -> tuple[Envelope | Notice, ...]:
        return self._heads.get(key, ())[:HEADS_MAX]

    async def by_digest(self, digest: bytes) -> Envelope | Notice | None:
        return self._held.get(digest)

    async def by_content(self, content_digest: bytes) -> Envelope | None:
        return self._versions.by_content(content_digest)

    async def has_content(self, content_digest: bytes) -> bool:
        return self._versions.by_content(content_digest) is not None

    async def contents(self, *, before: int, limit: int) -> list[HeldContent]:
        sequences = range(min(before, self.last_sequence + 1) - 1, 0, -1)
        return list(islice(filter(None, map(self._content_at, sequences)), limit))

    def _content_at(self, sequence: int) -> HeldContent | None:
        """The content that came with an entry of the log."""
        digest = self._digests[sequence - 1]
        item, first = self._held[digest], self._sequences[digest]
        if not self._versions.is_first_with_content(item) or self._completed.get(digest, first) != sequence:
            return None
        return HeldContent(sequence, item.content_digest, item.key, self._is_local(first))

    async def unknown(self, digests: Sequence[bytes]) -> list[bytes]:
        return [digest for digest in digests if digest not in self._held]

    async def without_content(self, digests: Sequence[bytes]) -> list[bytes]:
        return [digest for digest in digests if not isinstance(self._held.get(digest), Envelope)]

    async def versions(self, key: bytes, *, after: int = 0, limit: int = 1000) -> list[Version]:
        return self._versions.versions(key, after, limit)

    async def count_versions(self, key: bytes, *, with_reissued: bool = True) -> int:
        return self._versions.count(key, with_reissued)

    async def nth(self, key: bytes, number: int, *, is_backwards: bool = False) -> VersionRef | None:
        return self._versions.nth(key, number, is_backwards)

    async def latest_held(self, key: bytes) -> VersionRef | None:
        return self._versions.latest_held(key)

    async def walk(
        self, key: bytes, *, beyond: VersionRef | None = None, is_backwards: bool = False, limit: int
    ) -> list[VersionRef]:
        return self._versions.walk(key, beyond, is_backwards, limit)

    async def missing_parents(self, key: bytes, *, limit: int = 1000) -> list[bytes]:
        return self._versions.missing_parents(key, limit)

    async def latest_reissue(self, digest: bytes) -> bytes:
        return self._versions.latest_reissue(digest)

    async def idempotent(self, idempotency_key: str) -> bytes | None:
        found = self._idempotent.get(idempotency_key)
        return found[0] if found is not None else None

    def latest_version(self) -> int:
        return self._versions.latest_version()

    # -- the log ----------------------------------------------------------------------------------------------

    async def log(self, *, after: int, limit: int = 1000) -> list[Change]:
        return [self._change(sequence) for sequence in range(after + 1, min(after + limit, self.last_sequence) + 1)]

    async def local_writes(self, *, after: int, limit: int = 1000) -> list[Change]:
        own = filter(self._is_own_write, range(after + 1, self.last_sequence + 1))
        return [self._change(sequence) for sequence in islice(own, limit)]

    def _is_local(self, sequence: int) -> bool:
        return self._origins[sequence - 1] is _LOCAL or sequence in self._adopted

    def _is_own_write(self, sequence: int) -> bool:
        """Whether this is the first entry of a local write that was not reissued."""
        digest = self._digests[sequence - 1]
        is_first = self._sequences[digest] == sequence
        return is_first and self._is_local(sequence) and digest not in self._versions.reissued

    def _change(self, sequence: int) -> Change:
        at = sequence - 1
        item = self._held[self._digests[at]]
        return Change(
            sequence, item.digest, item.key, item.address, item.version, item.author, item.deleted, self._origins[at],
            self._times[at],
        )  # fmt: skip

    async def wait_until_grown(self, after: int) -> int:
        while self.last_sequence <= after:
            await self._grown.wait()
        return self.last_sequence

    # -- hints ------------------------------------------------------------------------------------------------

    async def due_hints(self, holder: str, *, after: int = 0, limit: int = 64, now_ms: int) -> list[Hint]:
        due = self._hints.index.due(holder, after=after, limit=limit, now_ms=now_ms)
        return [self._hint(holder, sequence) for sequence in due]

    def _hint(self, holder: str, sequence: int) -> Hint:
        item = self._held[self._digests[sequence - 1]]
        attempts, next_try_ms, refusal = self._hints.tries(holder, sequence)
        return Hint(
            holder=holder, sequence=sequence, digest=item.digest, key=item.key, address=item.address,
            attempts=attempts, next_try_ms=next_try_ms, refusal=refusal,
            is_refused=self._hints.index.is_quarantined(holder, sequence), at_ms=self._times[sequence - 1],
        )  # fmt: skip

    def next_hint_due(self, holder: str) -> int | None:
        return self._hints.index.next_due(holder)

    def hint_counts(self) -> dict[str, int]:
        return self._hints.index.pending_by_holder()

    def hint_totals(self) -> dict[str, int]:
        return self._hints.index.total_by_holder()

    def acknowledge(self, holder: str, sequences: Iterable[int]) -> None:
        self._hints.acknowledge(holder, sequences)

    def postpone_hint(self, holder: str, sequence: int, *, next_try_ms: int, refusal: str) -> None:
        self._hints.postpone(holder, sequence, next_try_ms, refusal)

    async def quarantine_hint(self, holder: str, sequence: int, *, refusal: str) -> None:
        await self._submit(lambda: self._hints.quarantine(holder, sequence, refusal))

    async def retry_quarantined(self) -> int:
        return await self._submit(lambda: len(self._hints.index.retry_quarantined()))

    async def add_hints(self, hints: Iterable[tuple[int, str]]) -> int:
        wanted = list(hints)
        return await self._submit(lambda: sum(self._add_hint(sequence, holder) for sequence, holder in wanted))

    def _add_hint(self, sequence: int, holder: str) -> bool:
        if not 0 < sequence <= self.last_sequence or not self._is_own_write(sequence):
            return False
        return self._hints.add(sequence, holder)

    async def drop_holder(self, holder: str) -> list[int]:
        return await self._submit(lambda: self._hints.drop_holder(holder))

    async def forget_acknowledged(self, holder: str) -> int:
        return await self._submit(lambda: self._hints.forget_acknowledged(holder))

    def pending(self) -> Pending:
        index = self._hints.index
        oldest = index.oldest_pending()
        oldest_at_ms = self._times[oldest - 1] if oldest is not None else None
        return Pending(index.pending_count(), oldest_at_ms, index.quarantined_count)

    async def owed_writes(self, *, after: int, limit: int = 1000) -> list[OwedWrite]:
        index = self._hints.index
        changes = [self._change(sequence) for sequence in index.writes(after=after, limit=limit)]
        return [OwedWrite(c.sequence, c.key, c.address, c.at_ms, tuple(index.holders_of(c.sequence))) for c in changes]

    async def hints(self, *, is_refused: bool | None = None, limit: int = 1000) -> list[Hint]:
        oldest = self._hints.index.oldest(is_refused=is_refused, limit=limit)
        return [self._hint(holder, sequence) for sequence, holder in oldest]

    async def standing(self, *, digest: bytes | None = None, sequence: int | None = None) -> Standing | None:
        if digest is None:
            if sequence is None or not 0 < sequence <= self.last_sequence:
                return None
            digest = self._digests[sequence - 1]
            if self._sequences[digest] != sequence:
                return None
        return self._standing(digest)

    def _standing(self, digest: bytes) -> Standing | None:
        digest = self._versions.own_reissue(digest)
        sequence = self._sequences.get(digest)
        if sequence is None or not self._is_local(sequence):
            return None
        acknowledged = self._hints.acknowledged(sequence)
        wanted = len(acknowledged) + len(self._hints.index.holders_of(sequence))
        return Standing(sequence, digest, acknowledged, wanted, self._times[sequence - 1])

    async def replicated(self, digest: bytes, count: int) -> Standing:
        while True:
            standing = self._standing(digest)
            if standing is None:
                raise NotFound(f"{digest.hex()} is no local write of this log", digest=digest.hex())
            if len(standing.acknowledged) >= count:
                return standing
            await self._hints.wait_for_change(standing.sequence)

    # -- staged envelopes -------------------------------------------------------------------------------------

    async def stage(self, envelope: Envelope, *, idempotency_key: str | None = None, now_ms: int) -> None:
        await self._submit(lambda: self._stage(_Staged(envelope, idempotency_key, now_ms)))

    def _stage(self, staged: _Staged) -> None:
        for old, (_, _, at_ms) in list(islice(self._staged.items(), 2)):
            if at_ms < staged.at_ms - IDEMPOTENCY_MS:
                del self._staged[old]
        digest = staged.envelope.digest
        if not isinstance(self._held.get(digest), Envelope):
            self._staged.setdefault(digest, staged)

    async def staged_under(self, idempotency_key: str) -> Envelope | None:
        found = [each.envelope for each in self._staged.values() if each.idempotency_key == idempotency_key]
        return found[-1] if found else None

    async def unstage(self, digest: bytes) -> None:
        await self._submit(lambda: self._staged.pop(digest, None))
