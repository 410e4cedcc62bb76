"""The store in memory: the twin of `store.py`, for tests, the simulator and nodes that are thrown away.

Plain dicts and lists. Nothing here waits, so each call is one step to everybody else and costs a microsecond or two;
only with `before_commit` given does a write wait, and possibly fail, where the disk's commit would: that is how the
simulator plants slow, stalled and full disks. Writes are then carried out by `run`, as in the twin: in the order in
which they came, and what comes while one commit is under way shares the next.

The same object may be run again after its `run` was cancelled: that is a restart with its disk. What it holds of
lazily durable facts (acknowledgements) survives such a restart, which is allowed and not promised.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import trio

from node.store.base import StoreStats
from node.store.change_listeners import ChangeListeners
from node.store.completion import CallbackCompletion, Completion
from node.store.errors import translated
from node.store.hint_index import HintIndex
from node.store.hints import Hint, Pending, Standing
from node.store.log import IDEMPOTENCY_MS, Change, Incoming, Merged, Origin
from node.store.members import Member
from node.store.signal import Signal
from node.store.versions import Version
from protocols.envelope import Envelope, Notice, order_key
from protocols.errors import NotFound, StorageFull, Unavailable
from protocols.heads import HeadSet

T = TypeVar("T")


class _Staged(NamedTuple):
    envelope: Envelope
    idempotency_key: str | None
    at_ms: int


class _Write:
    """A local write that somebody is owed, or has acknowledged."""

    __slots__ = ("acknowledged", "bell", "tries")

    def __init__(self) -> None:
        self.acknowledged: list[str] = []
        self.tries: dict[str, tuple[int, int, str]] = {}
        """By holder: attempts, next try, last refusal."""
        self.bell = Signal()


_UNTRIED = (0, 0, "")
_LOCAL = Origin.LOCAL


class MemoryStore:
    """See `base.Store`. `before_commit` is awaited before each commit; the `OSError` it raises fails that commit.

    It may be set and taken away at any time. With it, what was handed in and is not committed when `run` is cancelled
    fails, as in a crash; without it there is never anything to commit.
    """

    def __init__(self, *, log_id: str, before_commit: Callable[[], Awaitable[None]] | None = None) -> None:
        self.log_id = log_id
        self.last_sequence = 0
        self.failures = 0
        self.committing_since: float | None = None
        self._failure = ""
        self._commits = 0
        self.before_commit = before_commit
        self._gathered: list[tuple[Callable[[], Any], Completion[Any] | CallbackCompletion]] = []
        self._handed_in = Signal()
        # The log, a column each: what is not a container costs the garbage collector nothing.
        self._digests: list[bytes] = []
        self._origins: list[Origin] = []
        self._times: list[int] = []
        self._held: dict[bytes, Envelope | Notice] = {}
        self._sequences: dict[bytes, int] = {}
        """By digest: the sequence of its first entry."""
        self._heads: dict[bytes, tuple[Envelope | Notice, ...]] = {}
        self._histories: dict[bytes, list[bytes]] = {}
        """Of those keys alone that have had more than one version."""
        self._lineages: dict[bytes, HeadSet] = {}
        """Of those keys alone whose versions are not one straight line."""
        self._latest: int | None = 0
        self._reissued: dict[bytes, bytes] = {}
        self._stand_ins: dict[bytes, list[Envelope]] = {}
        """By digest: the versions that say that they reissue it. Those of its own author do."""
        self._adopted: set[int] = set()
        """Versions that came from a peer first and were then written here."""
        self._idempotent: dict[str, tuple[bytes, int]] = {}
        self._grown = Signal()
        self.change_listeners = ChangeListeners()
        self._cursors: dict[str, int] = {}
        self._writes: dict[int, _Write] = {}
        self._debts = HintIndex()
        self._staged: dict[bytes, _Staged] = {}
        self._members: dict[str, Member] = {}
        self._providers: dict[bytes, dict[str, int]] = {}

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        batch: list[tuple[Callable[[], Any], Completion[Any] | CallbackCompletion]] = []
        try:
            while True:
                while not self._gathered:
                    await self._handed_in.listen()
                batch, self._gathered = self._gathered, []
                await self._commit(batch)
                batch = []
        finally:
            for _, ticket in batch + self._gathered:
                ticket.fail(Unavailable("the store was closed before this was written; try again when it is open"))
            self._gathered = []

    async def _commit(self, batch: list[tuple[Callable[[], Any], Completion[Any] | CallbackCompletion]]) -> None:
        try:
            if self.before_commit is not None:
                self.committing_since = trio.current_time()
                await self.before_commit()
        except OSError as error:
            self._failure = translated(error).message
            self.failures += 1
            for _, ticket in batch:
                ticket.fail(translated(error))
            return
        finally:
            self.committing_since = None
        self._failure = ""
        self._commits += 1
        for operation, ticket in batch:
            try:
                result = operation()
            except NotFound as error:
                ticket.fail(error)
            else:
                ticket.succeed(result)

    @property
    def last_failure(self) -> str:
        return self._failure if self.before_commit is not None else ""

    async def _written(self, operation: Callable[[], T]) -> T:
        """Do it once the disk has said yes; at once when nobody asks the disk."""
        if self.before_commit is None and not self._gathered:
            return operation()
        ticket: Completion[T] = Completion()
        self._gathered.append((operation, ticket))
        self._handed_in.ring()
        return await ticket.wait()

    # -- the one door -----------------------------------------------------------------------------------------

    def merge_without_waiting(self, batch: Sequence[Incoming], *, now_ms: int) -> list[Merged] | None:
        if self.before_commit is None and not self._gathered:
            return self._merge(batch, now_ms)
        return None

    async def merge(self, batch: Sequence[Incoming], *, now_ms: int) -> list[Merged]:
        merged = self.merge_without_waiting(batch, now_ms=now_ms)
        if merged is not None:
            return merged
        return await self._written(partial(self._merge, batch, now_ms))

    def merge_in_background(
        self, batch: Sequence[Incoming], *, now_ms: int, on_done: Callable[[list[Merged] | BaseException], None]
    ) -> None:
        merged = self.merge_without_waiting(batch, now_ms=now_ms)
        if merged is not None:
            on_done(merged)
        else:
            self._gathered.append((partial(self._merge, batch, now_ms), CallbackCompletion(on_done)))
            self._handed_in.ring()

    def _merge(self, batch: Sequence[Incoming], now_ms: int) -> list[Merged]:
        merged = [self._merge_one(incoming, now_ms) for incoming in batch]
        if self._grown.has_listeners:
            self._grown.ring()
        return merged

    def _merge_one(self, incoming: Incoming, now_ms: int) -> Merged:
        item, origin, holders, acknowledged, idempotency_key = incoming
        digest = item.digest
        known = self._held.get(digest)
        if known is None:
            sequence, is_new = self._append(digest, origin, now_ms), True
            self._held[digest] = item
            self._sequences[digest] = sequence
            self._place(item)
            self.change_listeners.tell(item.key)
        else:
            sequence, is_new = self._sequences[digest], self._learn(known, item, origin, now_ms)
        if self._staged and isinstance(item, Envelope):
            self._staged.pop(digest, None)
        if origin is _LOCAL:
            if self._origins[sequence - 1] is not _LOCAL:
                self._adopted.add(sequence)
            if (holders or acknowledged) and digest not in self._reissued:
                self._owe(sequence, holders, acknowledged)
            if idempotency_key is not None:
                self._remember(idempotency_key, digest, now_ms)
        return Merged(sequence, is_new)

    def _append(self, digest: bytes, origin: Origin, now_ms: int) -> int:
        self._digests.append(digest)
        self._origins.append(origin)
        self._times.append(now_ms)
        self.last_sequence += 1
        return self.last_sequence

    def _place(self, item: Envelope | Notice) -> None:
        """A new version among the others of its key."""
        key = item.key
        version = item.version
        if self._latest is not None and version > self._latest:
            self._latest = version
        heads = self._heads.get(key)
        is_reissue = self._note_reissue(item)
        if heads is None and not item.parents and not is_reissue:
            self._heads[key] = (item,)
            return
        self._history(key).append(item.digest)
        lineage = self._lineages.get(key)
        if lineage is not None:
            lineage.add(item.digest, version, item.parents, author=item.author, reissues=item.reissues)
            self._heads[key] = self._ordered(lineage)
        elif heads and not is_reissue and item.parents == (heads[0].digest,) and version > heads[0].version:
            self._heads[key] = (item,)
        else:
            self._rebuild(key)

    def _note_reissue(self, item: Envelope | Notice) -> bool:
        """Whether a new version says that it stands in for another, or another that it does for this one."""
        reissues = item.reissues
        if isinstance(item, Envelope):
            for old in reissues:
                self._stand_ins.setdefault(old, []).append(item)
        return bool(reissues) or item.digest in self._stand_ins

    def _history(self, key: bytes) -> list[bytes]:
        """The digests of a key's versions, in the order in which they came; to be added to."""
        history = self._histories.get(key)
        if history is None:
            history = self._histories[key] = self._listed(key)
        return history

    def _listed(self, key: bytes) -> list[bytes]:
        history = self._histories.get(key)
        return history if history is not None else [head.digest for head in self._heads.get(key, ())]

    def _rebuild(self, key: bytes) -> None:
        """The heads of a key from scratch."""
        history = self._history(key)
        if not history:
            for table in (self._histories, self._lineages, self._heads):
                table.pop(key, None)
            return
        lineage = self._lineages[key] = HeadSet()
        for digest in history:
            item = self._held[digest]
            if digest in self._reissued:
                lineage.add_reissues(item.reissues, item.author)
            else:
                lineage.add(digest, item.version, item.parents, author=item.author, reissues=item.reissues)
        self._heads[key] = self._ordered(lineage)

    def _ordered(self, lineage: HeadSet) -> tuple[Envelope | Notice, ...]:
        heads = [self._held[digest] for digest in lineage.heads()]
        if len(heads) > 1:
            heads.sort(key=order_key, reverse=True)
        return tuple(heads)

    def _learn(self, known: Envelope | Notice, item: Envelope | Notice, origin: Origin, now_ms: int) -> bool:
        """A version came that is known; whether it told anything new."""
        more = _learned(known, item)
        if more is None:
            return False
        self._append(more.digest, origin, now_ms)
        self._history(known.key).remove(known.digest)
        self._history(more.key).append(more.digest)
        self._held[more.digest] = more
        is_reissue = isinstance(known, Notice) and self._note_reissue(more)
        for key in {known.key: None, more.key: None}:
            self.change_listeners.tell(key)
        lineage = self._lineages.get(more.key)
        if lineage is not None and not is_reissue and _is_as_said(known, more):
            lineage.add(more.digest, more.version, more.parents)
            self._heads[more.key] = self._ordered(lineage)
            return True
        self._latest = None
        self._rebuild(more.key)
        if known.key != more.key:
            self._rebuild(known.key)
        return True

    def _owe(self, sequence: int, holders: Iterable[str], acknowledged: Iterable[str]) -> None:
        write = self._write(sequence)
        for peer in acknowledged:
            self._debts.remove(peer, sequence)
            write.tries.pop(peer, None)
            if peer not in write.acknowledged:
                write.acknowledged.append(peer)
        for holder in holders:
            if holder not in write.acknowledged:
                self._debts.add(holder, sequence)
        write.bell.ring()

    def _write(self, sequence: int) -> _Write:
        write = self._writes.get(sequence)
        if write is None:
            write = self._writes[sequence] = _Write()
        return write

    def _remember(self, idempotency_key: str, digest: bytes, now_ms: int) -> None:
        self._idempotent.setdefault(idempotency_key, (digest, now_ms))
        for old, (_, at_ms) in list(islice(self._idempotent.items(), 2)):
            if at_ms < now_ms - IDEMPOTENCY_MS:
                del self._idempotent[old]

    async def settled(self) -> None:
        with suppress(StorageFull, Unavailable):  # what is handed in is carried out in its order
            await self._written(lambda: None)

    async def reissue(self, digest: bytes, replacement: Envelope, holders: tuple[str, ...], *, now_ms: int) -> Merged:
        return await self._written(lambda: self._reissue(digest, replacement, holders, now_ms))

    def _reissue(self, digest: bytes, replacement: Envelope, holders: tuple[str, ...], now_ms: int) -> Merged:
        item = self._held.get(digest)
        if item is None or not self._is_local(self._sequences[digest]):
            raise NotFound(f"{digest.hex()} is no local write of this log", digest=digest.hex())
        if digest in self._reissued:
            return Merged(self._sequences[self._standing_in(digest)], False)
        assert replacement.digest not in (digest, *self._reissued), "a reissue is a version of its own"
        sequence = self._sequences[digest]
        self._reissued[digest] = replacement.digest
        self._debts.remove_all(sequence)
        if item.version == self._latest:
            self._latest = None
        (merged,) = self._merge([Incoming(replacement, Origin.LOCAL, holders)], now_ms)
        self._rebuild(item.key)
        self.change_listeners.tell(item.key)
        if sequence in self._writes:
            self._writes[sequence].bell.ring()
        return merged

    def _is_local(self, sequence: int) -> bool:
        return self._origins[sequence - 1] is _LOCAL or sequence in self._adopted

    def _standing_in(self, digest: bytes) -> bytes:
        while digest in self._reissued:
            digest = self._reissued[digest]
        return digest

    def _reissued_as(self, item: Envelope | Notice) -> bytes | None:
        """What stands in for a version, as this store did it or as its author tells."""
        by_author = [
            each.digest
            for each in self._stand_ins.get(item.digest, ())
            if (each.key, each.author) == (item.key, item.author)
        ]
        return self._reissued.get(item.digest) or min(by_author, default=None)

    # -- versions ---------------------------------------------------------------------------------------------

    async def stand_in(self, digest: bytes) -> bytes:
        item = self._held.get(digest)
        while item is not None and (stand_in := self._reissued_as(item)) is not None:
            digest = stand_in
            item = self._held.get(digest)
        return digest

    async def heads(self, key: bytes) -> tuple[Envelope | Notice, ...]:
        return self._heads.get(key, ())

    async def by_digest(self, digest: bytes) -> Envelope | Notice | None:
        return self._held.get(digest)

    async def versions(self, key: bytes, *, after: int = 0, limit: int = 1000) -> list[Version]:
        heads = {head.digest for head in self._heads.get(key, ())}
        items = sorted((self._held[digest] for digest in self._listed(key)), key=order_key)
        return [
            Version(
                address=item.address, digest=item.digest, version=item.version, author=item.author,
                deleted=item.deleted, parents=item.parents,
                content_type=item.content_type if isinstance(item, Envelope) else "",
                size_bytes=len(item.content) if isinstance(item, Envelope) else 0,
                is_held=isinstance(item, Envelope), is_head=item.digest in heads,
                reissued_as=self._reissued_as(item),
            )
            for item in items[after : after + limit]
        ]  # fmt: skip

    async def count_versions(self, key: bytes) -> int:
        return len(self._listed(key))

    async def idempotent(self, idempotency_key: str) -> bytes | None:
        found = self._idempotent.get(idempotency_key)
        return found[0] if found is not None else None

    def latest_version(self) -> int:
        if self._latest is None:
            current = (item.version for digest, item in self._held.items() if digest not in self._reissued)
            self._latest = max(current, default=0)
        return self._latest

    # -- the log ----------------------------------------------------------------------------------------------

    async def log(self, *, after: int, limit: int = 1000) -> list[Change]:
        return [self._change(sequence) for sequence in range(after + 1, min(after + limit, self.last_sequence) + 1)]

    async def local_writes(self, *, after: int, limit: int = 1000) -> list[Change]:
        own = filter(self._is_own, range(after + 1, self.last_sequence + 1))
        return [self._change(sequence) for sequence in islice(own, limit)]

    def _is_own(self, sequence: int) -> bool:
        digest = self._digests[sequence - 1]
        return self._is_local(sequence) and self._sequences[digest] == sequence and digest not in self._reissued

    def _change(self, sequence: int) -> Change:
        at = sequence - 1
        item = self._held[self._digests[at]]
        return Change(
            sequence, item.digest, item.key, item.address, item.version, item.author, item.deleted, self._origins[at],
            self._times[at],
        )  # fmt: skip

    async def wait_until_grown(self, after: int) -> int:
        while self.last_sequence <= after:
            await self._grown.listen()
        return self.last_sequence

    async def cursor(self, name: str) -> int:
        return self._cursors.get(name, 0)

    async def set_cursor(self, name: str, sequence: int) -> None:
        self._cursors[name] = sequence

    # -- hints ------------------------------------------------------------------------------------------------

    async def due_hints(self, holder: str, *, after: int = 0, limit: int = 64, now_ms: int) -> list[Hint]:
        picked = self._debts.pick(holder, after=after, limit=limit, now_ms=now_ms)
        return [self._hint(holder, sequence) for sequence in picked]

    def _hint(self, holder: str, sequence: int) -> Hint:
        item = self._held[self._digests[sequence - 1]]
        attempts, next_try_ms, refusal = self._writes[sequence].tries.get(holder, _UNTRIED)
        return Hint(
            holder=holder, sequence=sequence, digest=item.digest, key=item.key, address=item.address,
            attempts=attempts, next_try_ms=next_try_ms, refusal=refusal,
            is_refused=self._debts.is_refused(holder, sequence), at_ms=self._times[sequence - 1],
        )  # fmt: skip

    def next_hint_due(self, holder: str) -> int | None:
        return self._debts.next_due(holder)

    def hint_counts(self) -> dict[str, int]:
        return self._debts.hint_counts()

    def acknowledge(self, holder: str, sequences: Iterable[int]) -> None:
        for sequence in sequences:
            if self._debts.remove(holder, sequence):
                write = self._writes[sequence]
                write.acknowledged.append(holder)
                write.tries.pop(holder, None)
                write.bell.ring()

    def postpone_hint(self, holder: str, sequence: int, *, next_try_ms: int, refusal: str) -> None:
        if self._debts.park(holder, sequence, next_try_ms):
            self._tried(holder, sequence, next_try_ms, refusal)

    def _tried(self, holder: str, sequence: int, next_try_ms: int, refusal: str) -> None:
        tries = self._writes[sequence].tries
        tries[holder] = (tries.get(holder, _UNTRIED)[0] + 1, next_try_ms, refusal)

    async def quarantine_hint(self, holder: str, sequence: int, *, refusal: str) -> None:
        await self._written(lambda: self._refuse(holder, sequence, refusal))

    def _refuse(self, holder: str, sequence: int, refusal: str) -> None:
        if self._debts.refuse(holder, sequence):
            self._tried(holder, sequence, 0, refusal)

    async def retry_quarantined(self) -> int:
        return await self._written(lambda: len(self._debts.retry_quarantined()))

    async def add_hints(self, hints: Iterable[tuple[int, str]]) -> int:
        asked = list(hints)
        return await self._written(lambda: sum(self._owe_one(sequence, holder) for sequence, holder in asked))

    def _owe_one(self, sequence: int, holder: str) -> bool:
        if not 0 < sequence <= self.last_sequence or not self._is_own(sequence):
            return False
        return holder not in self._write(sequence).acknowledged and self._debts.add(holder, sequence)

    async def drop_holder(self, holder: str) -> list[int]:
        return await self._written(lambda: self._release(holder))

    def _release(self, holder: str) -> list[int]:
        released = self._debts.release(holder)
        for sequence in released:
            self._writes[sequence].tries.pop(holder, None)
        return released

    def stats(self) -> StoreStats:
        return StoreStats(
            versions=len(self._held), size_bytes=None, commits=self._commits, commit_failures=self.failures,
            at_risk=self._debts.writes(),
        )  # fmt: skip

    def pending(self) -> Pending:
        oldest = self._debts.oldest()
        oldest_at_ms = self._times[oldest - 1] if oldest is not None else None
        return Pending(self._debts.count(), oldest_at_ms, self._debts.refused)

    async def hints(self, *, is_refused: bool | None = None, limit: int = 1000) -> list[Hint]:
        listed = self._debts.listed(is_refused=is_refused, limit=limit)
        return [self._hint(holder, sequence) for sequence, holder in listed]

    async def standing(self, *, digest: bytes | None = None, sequence: int | None = None) -> Standing | None:
        if digest is None:
            if sequence is None or not 0 < sequence <= self.last_sequence:
                return None
            digest = self._digests[sequence - 1]
            if self._sequences[digest] != sequence:
                return None
        return self._standing(digest)

    def _standing(self, digest: bytes) -> Standing | None:
        digest = self._standing_in(digest) if self._reissued else digest
        sequence = self._sequences.get(digest)
        if sequence is None or not self._is_local(sequence):
            return None
        write = self._writes.get(sequence)
        at_ms = self._times[sequence - 1]
        if write is None:
            return Standing(sequence, digest, (), 0, at_ms)
        wanted = len(write.acknowledged) + len(self._debts.holders_of(sequence))
        return Standing(sequence, digest, tuple(write.acknowledged), wanted, at_ms)

    async def replicated(self, digest: bytes, count: int) -> Standing:
        while True:
            standing = self._standing(digest)
            if standing is None:
                raise NotFound(f"{digest.hex()} is no local write of this log", digest=digest.hex())
            if len(standing.acknowledged) >= count:
                return standing
            await self._write(standing.sequence).bell.listen()

    # -- staged envelopes -------------------------------------------------------------------------------------

    async def stage(self, envelope: Envelope, *, idempotency_key: str | None = None, now_ms: int) -> None:
        await self._written(lambda: self._stage(_Staged(envelope, idempotency_key, now_ms)))

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
        await self._written(lambda: self._staged.pop(digest, None))

    # -- members and providers --------------------------------------------------------------------------------

    def members(self) -> tuple[Member, ...]:
        return tuple(self._members[peer] for peer in sorted(self._members))

    async def save_member(self, member: Member) -> None:
        await self._written(lambda: self._members.update({member.peer: member}))

    async def forget_member(self, peer: str) -> None:
        await self._written(lambda: self._members.pop(peer, None))

    async def provide(self, key: bytes, peer: str, *, expires_ms: int) -> None:
        await self._written(lambda: self._providers.setdefault(key, {}).update({peer: expires_ms}))

    async def providers(self, key: bytes, *, now_ms: int) -> list[str]:
        providing = self._providers.get(key, {})
        return sorted(peer for peer, expires_ms in providing.items() if expires_ms > now_ms)


def _learned(known: Envelope | Notice, item: Envelope | Notice) -> Envelope | Notice | None:
    """What is known of a version once `item` came too, or None when that told nothing new.

    A notice is worth what its sender is worth: a second one adds the parents that were unknown, and nothing else.
    """
    if isinstance(known, Envelope):
        return None
    if isinstance(item, Envelope):
        return item
    return known._replace(parents=item.parents) if item.parents and not known.parents else None


def _is_as_said(known: Envelope | Notice, more: Envelope | Notice) -> bool:
    """Whether a version is what its notice said, as far as heads go: else more than one edge has to be thought over."""
    is_same = (known.key, known.version, known.author) == (more.key, more.version, more.author)
    return is_same and known.parents in ((), more.parents)
