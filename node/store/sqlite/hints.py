"""The hints of the SQLite store, and the standing of its local writes.

The index of all hints and the latest local writes are in memory; what else a hint says is in the tables. An
acknowledgement or a postponement counts in memory at once, and is written with the next commit: so a read of the tables
is completed with the writer's deferred writes.
"""

import sqlite3
from collections.abc import Iterable, Sequence

from node.store.hints import Hint, OwedWrite, Pending, Standing
from node.store.sqlite import queries
from node.store.sqlite.deferred_writes import DeferredWrites
from node.store.sqlite.merge import MergeOutcome
from node.store.sqlite.prefix_index import PrefixIndexes
from node.store.sqlite.reader import Reader
from node.store.sqlite.transaction import NewHints
from node.store.sqlite.write_cache import AcknowledgementSignals, CachedWrite, WriteCache
from node.store.sqlite.writer import Writer
from protocols.errors import NotFound

CACHED_WRITES_MAX = 8192
READS_MAX = 2
"""How often hints are read until no commit came between; after the last read, `attempts` may be one off. Under load
there is a commit during every read, and without a limit the reading would never end."""


class SqliteHints:
    """See `hints.Hints`. The `publish` methods are called on the trio thread after a commit."""

    def __init__(self, db: sqlite3.Connection, writer: Writer, reader: Reader, prefixes: PrefixIndexes) -> None:
        self._writer = writer
        self._reader = reader
        self._prefixes = prefixes
        self.index = queries.hint_index(db)
        self._cache = WriteCache(CACHED_WRITES_MAX)
        self._signals = AcknowledgementSignals()
        oldest = self.index.oldest_pending()
        self._oldest = (oldest, queries.at_ms(db, oldest)) if oldest is not None else None
        """The oldest write with a pending hint, and when it was merged."""

    # -- after a commit ---------------------------------------------------------------------------------------

    def publish(self, outcome: MergeOutcome) -> None:
        """A local write was merged."""
        sequence = outcome.sequence
        cached = self._cache.get(sequence)
        if outcome.is_new and not outcome.is_completion:
            item = outcome.incoming.item
            acknowledged = list(outcome.new_acknowledged)
            self._cache.add(CachedWrite(sequence, item.digest, item.key, item.address, outcome.at_ms, acknowledged))
        elif cached is not None:
            cached.acknowledged += [peer for peer in outcome.new_acknowledged if peer not in cached.acknowledged]
        for holder in outcome.new_acknowledged:
            self.index.remove(holder, sequence)
        for holder in outcome.new_hints:
            self.index.add(holder, sequence)
        if outcome.new_hints:
            self._note_oldest(sequence, outcome.at_ms)
        self._signals.notify(sequence)

    def publish_reissue(self, old_sequence: int) -> None:
        """A local write was reissued."""
        self.index.remove_write(old_sequence)
        self._cache.drop(old_sequence)
        self._signals.notify(old_sequence)

    def _publish_new(self, new: NewHints) -> int:
        for sequence, holder in new.hints:
            self.index.add(holder, sequence)
        if new.hints:
            self._note_oldest(min(new.hints)[0], new.oldest_at_ms)
        return len(new.hints)

    # -- reading ----------------------------------------------------------------------------------------------

    async def due_hints(self, holder: str, *, after: int = 0, limit: int = 64, now_ms: int) -> list[Hint]:
        due = self.index.due(holder, after=after, limit=limit, now_ms=now_ms)
        return [hint for hint in await self._read(holder, due) if self.index.is_due(holder, hint.sequence)]

    def next_hint_due(self, holder: str) -> int | None:
        return self.index.next_due(holder)

    def hint_counts(self) -> dict[str, int]:
        return self.index.pending_by_holder()

    def hint_totals(self) -> dict[str, int]:
        return self.index.total_by_holder()

    async def hints(self, *, is_refused: bool | None = None, limit: int = 1000) -> list[Hint]:
        oldest = self.index.oldest(is_refused=is_refused, limit=limit)
        by_holder: dict[str, list[int]] = {}
        for sequence, holder in oldest:
            by_holder.setdefault(holder, []).append(sequence)
        hints = {
            (hint.sequence, holder): hint
            for holder, sequences in by_holder.items()
            for hint in await self._read(holder, sequences)
        }
        return [hints[pair] for pair in oldest if pair in hints]

    async def owed_writes(self, *, after: int, limit: int = 1000) -> list[OwedWrite]:
        found: list[OwedWrite] = []
        sequences = self.index.writes(after=after, limit=limit)
        if not sequences:
            return found
        for write in await self._reader.ask(lambda db: queries.writes(db, sequences)):
            if holders := self.index.holders_of(write.sequence):  # else they acknowledged it meanwhile
                found.append(OwedWrite(write.sequence, write.key, write.address, write.at_ms, tuple(holders)))
        return found

    async def _read(self, holder: str, sequences: Sequence[int]) -> list[Hint]:
        """The hints from memory or else from the disk; hints that were acknowledged meanwhile are left out."""
        hints: dict[int, Hint] = {}
        for sequence in sequences:
            write = self._cache.get(sequence)
            hint = write.hint(holder) if write is not None else None
            if hint is not None:
                hints[sequence] = hint
        rest = [sequence for sequence in sequences if sequence not in hints]
        if rest:
            hints.update(await self._load(holder, rest))
        return [hints[sequence] for sequence in sequences if sequence in hints]

    async def _load(self, holder: str, sequences: Sequence[int]) -> dict[int, Hint]:
        rows: dict[int, queries.HintRow] = {}
        for _ in range(READS_MAX):
            commits = self._writer.deferred_commits
            rows = await self._reader.ask(lambda db: queries.hints(db, holder, sequences))
            if commits == self._writer.deferred_commits:
                break
        hints: dict[int, Hint] = {}
        for sequence, row in rows.items():
            attempts, next_try_ms, refusal = row.attempts, row.next_try_ms, row.refusal
            for deferred in self._deferred():
                later = deferred.postponed.get((holder, sequence))
                if later is not None:
                    attempts, next_try_ms, refusal = attempts + later[0], later[1], later[2]
            if self.index.has(holder, sequence):
                hints[sequence] = Hint(
                    holder=holder, sequence=sequence, digest=row.digest, key=row.key, address=row.address,
                    attempts=attempts, next_try_ms=next_try_ms, refusal=refusal,
                    is_refused=self.index.is_quarantined(holder, sequence), at_ms=row.at_ms,
                )  # fmt: skip
        return hints

    def _deferred(self) -> tuple[DeferredWrites, DeferredWrites]:
        """What the tables do not have yet, in order."""
        return self._writer.deferred_in_commit, self._writer.deferred

    # -- changing ---------------------------------------------------------------------------------------------

    def acknowledge(self, holder: str, sequences: Iterable[int]) -> None:
        for sequence in sequences:
            if self.index.remove(holder, sequence):
                self._writer.deferred.acknowledge(holder, sequence)
                write = self._cache.get(sequence)
                if write is not None:
                    write.acknowledged.append(holder)
                self._signals.notify(sequence, len(write.acknowledged) if write is not None else None)
        self._writer.flush_soon()

    def postpone_hint(self, holder: str, sequence: int, *, next_try_ms: int, refusal: str) -> None:
        if self.index.postpone(holder, sequence, next_try_ms):
            self._note_attempt(holder, sequence)
            self._writer.deferred.postpone(holder, sequence, 1, next_try_ms, refusal)
            self._writer.flush_soon()

    def _note_attempt(self, holder: str, sequence: int) -> None:
        write = self._cache.get(sequence)
        if write is not None:
            if write.tried is None:
                write.tried = set()
            write.tried.add(holder)

    async def quarantine_hint(self, holder: str, sequence: int, *, refusal: str) -> None:
        def publish(_: None) -> None:
            if self.index.quarantine(holder, sequence):
                self._note_attempt(holder, sequence)

        await self._writer.submit(lambda transaction: transaction.quarantine_hint(holder, sequence, refusal), publish)

    async def retry_quarantined(self) -> int:
        retried: int = await self._writer.submit(
            lambda transaction: transaction.retry_quarantined(), lambda _: len(self.index.retry_quarantined())
        )  # fmt: skip
        return retried

    async def add_hints(self, hints: Iterable[tuple[int, str]]) -> int:
        missing = [(sequence, holder) for sequence, holder in hints if not self.index.has(holder, sequence)]
        if not missing:
            return 0
        count: int = await self._writer.submit(
            lambda transaction: transaction.add_hints(missing), self._publish_new
        )  # fmt: skip
        return count

    async def drop_holder(self, holder: str) -> list[int]:
        dropped: list[int] = await self._writer.submit(
            lambda transaction: transaction.drop_holder(holder), lambda _: self.index.drop_holder(holder)
        )  # fmt: skip
        return dropped

    async def forget_acknowledged(self, holder: str) -> int:
        def publish(count: int) -> int:
            self._cache.forget_acknowledged(holder)
            return count

        count: int = await self._writer.submit(lambda transaction: transaction.forget_acknowledged(holder), publish)
        return count

    # -- the oldest -------------------------------------------------------------------------------------------

    def pending(self) -> Pending:
        return Pending(self.index.pending_count(), self._oldest_at_ms(), self.index.quarantined_count)

    def _oldest_at_ms(self) -> int | None:
        """For a write that is not cached, the time of an earlier one, until the disk has answered."""
        oldest = self.index.oldest_pending()
        if oldest is None:
            self._oldest = None
            return None
        write = self._cache.get(oldest)
        if write is not None:
            self._oldest = (oldest, write.at_ms)
        elif self._oldest is None or self._oldest[0] != oldest:
            self._reader.ask_in_background(lambda db: (oldest, queries.at_ms(db, oldest)), self._set_oldest)
        return self._oldest[1] if self._oldest is not None else None

    def _set_oldest(self, oldest: tuple[int, int]) -> None:
        self._oldest = oldest

    def _note_oldest(self, sequence: int, at_ms: int) -> None:
        if self._oldest is None or sequence < self._oldest[0]:
            self._oldest = (sequence, at_ms)

    # -- standing ---------------------------------------------------------------------------------------------

    async def standing(self, *, digest: bytes | None = None, sequence: int | None = None) -> Standing | None:
        write: CachedWrite | None = None
        if digest is not None:
            write = self._cache.by_digest(digest)
        elif sequence is not None:
            write = self._cache.get(sequence)
        if write is not None:
            return self._standing(write.sequence, write.digest, write.acknowledged, write.at_ms)
        while True:
            commits = self._writer.deferred_commits
            found = await self._reader.ask(lambda db: queries.local_write(db, self._prefixes, digest, sequence))
            if commits == self._writer.deferred_commits:
                break
        if found is None or found.sequence > self._writer.last_sequence:
            return None
        acknowledged = list(found.acknowledged)
        for deferred in self._deferred():
            acknowledged += [
                holder
                for holder, sequences in deferred.acknowledged.items()
                if found.sequence in sequences and holder not in acknowledged
            ]
        return self._standing(found.sequence, found.digest, acknowledged, found.at_ms)

    def _standing(self, sequence: int, digest: bytes, acknowledged: Sequence[str], at_ms: int) -> Standing:
        wanted = len(acknowledged) + len(self.index.holders_of(sequence))
        return Standing(sequence, digest, tuple(acknowledged), wanted, at_ms)

    async def replicated(self, digest: bytes, count: int) -> Standing:
        while True:
            write = self._cache.by_digest(digest)
            if write is not None and len(write.acknowledged) < count:
                await self._signals.wait(write.sequence, count)
                continue
            standing = await self.standing(digest=digest)
            if standing is None:
                raise NotFound(f"{digest.hex()} is no local write of this log", digest=digest.hex())
            if len(standing.acknowledged) >= count:
                return standing
            await self._signals.wait(standing.sequence, count)
