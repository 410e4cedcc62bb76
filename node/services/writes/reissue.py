"""Reissue: writes that were made under a clock that ran ahead are issued again, under versions that peers accept.

While a node's clock is far ahead, every peer refuses its writes until their time has come, maybe years later. Once the
clock is right again, each of these writes is issued again: the same content, in order, on top of the same parents (or
of the versions that replace them). `meta.reissues` names the replaced version, which is then no head wherever it was
accepted (`protocols/heads.py`); receipts follow. When a clock is set right in several steps a write is issued several
times, and a peer may have accepted any of these: so the last one names them all. Late, never lost. A version that
another author signed cannot be signed again here: it stays postponed, and visible.

When a clock was set back by mistake, all versions look ahead: so a version that a peer has accepted is issued again
only if another peer refuses it as too far ahead.
"""

import logging
from collections import deque
from collections.abc import Callable, Mapping
from math import inf

import trio

from node.services.writes.author import Author
from node.store.base import Store
from node.swarm.members import Members
from protocols.clock import AHEAD_MS_MAX, HybridClock, ahead_ms
from protocols.envelope import Envelope, seal
from protocols.errors import BzzzError, InvalidPayload, TooLarge
from protocols.header import REISSUES, REISSUES_MAX
from protocols.keys import PrivateKey

log = logging.getLogger(__name__)

CHECK_SECONDS = 1.0
AGAIN_SECONDS = 5.0
"""When to scan once more after the clock was set right: a write that was under way then is in the store by now."""
QUIET_SECONDS = 30.0
"""How long known refusals ask for no scan after one that found nothing: a scan reads every own write."""
WAIT_SECONDS_MAX = 300.0
"""The longest time until a write that stands on another author's version is tried again."""
LOCK_SECONDS = 5.0
"""How long to wait for the lock of a key."""
HOLD_SECONDS = 0.03
"""How long to hold the lock of a key before its writers get it again."""
REFUSED_MAX = 65_536
"""How many refusals are remembered; a version that is forgotten is refused again."""
PAGE = 500


class ClockRefusals:
    """Versions of this node that a peer refused as too far ahead, and that are ahead of this node's own clock too.

    Hinted handoff adds them, the reissuer waits for them.
    """

    def __init__(self) -> None:
        self._digests: dict[bytes, None] = {}
        self._is_scan_requested = False
        self._requested = trio.Event()
        self._quiet_until = -inf

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._digests

    def add(self, digest: bytes) -> None:
        """A new refusal requests a scan at once; a known one only after the quiet time."""
        is_new = digest not in self._digests
        if is_new:
            self._digests[digest] = None
            while len(self._digests) > REFUSED_MAX:
                del self._digests[next(iter(self._digests))]
        if is_new or trio.current_time() >= self._quiet_until:
            self._is_scan_requested = True
            self._requested.set()

    def discard(self, digest: bytes) -> None:
        """The version was issued again."""
        self._digests.pop(digest, None)

    def keep_quiet_until(self, time: float) -> None:
        self._quiet_until = time

    def take_request(self) -> bool:
        """Whether a scan was requested since the last call."""
        is_requested, self._is_scan_requested = self._is_scan_requested, False
        return is_requested

    async def wait(self, seconds: float) -> None:
        """Wait until a scan is requested, for so long at most."""
        self._requested = trio.Event()
        with trio.move_on_after(seconds):
            await self._requested.wait()


class Reissuer:
    """Compares the node's clock with the versions that it gave out."""

    def __init__(
        self,
        store: Store,
        author: Author,
        members: Members,
        key: PrivateKey,
        *,
        refusals: ClockRefusals,
        now_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._author = author
        self._members = members
        self._key = key
        self._now_ms = now_ms
        self._refusals = refusals
        self._scan_at = inf
        self._waiting: dict[bytes, None] = {}
        """Keys with writes that stand on another author's version, which is as far ahead."""
        self._wait_seconds = AGAIN_SECONDS
        self._wait_until = -inf

    async def run(self) -> None:
        while True:
            now = trio.current_time()
            is_ahead = self._is_ahead(self._author.clock.latest)
            if self._refusals.take_request():
                self._scan_at = min(self._scan_at, now)
            if is_ahead or now >= self._scan_at:
                self._scan_at = now + AGAIN_SECONDS if is_ahead else inf
                try:
                    if not await self._reissue_all():
                        self._refusals.keep_quiet_until(now + QUIET_SECONDS)
                except BzzzError as error:
                    self._scan_at = now
                    log.warning("writes of a clock that ran ahead could not be issued again yet: %s", error.message)
            elif self._waiting and now >= self._wait_until:
                await self._retry_waiting(now)
            await self._refusals.wait(CHECK_SECONDS)

    def _is_ahead(self, version: int) -> bool:
        return ahead_ms(version, self._now_ms()) > AHEAD_MS_MAX

    async def _retry_waiting(self, now: float) -> None:
        """Try the waiting keys again: the versions that their writes stand on may have been issued again since."""
        keys, self._waiting = self._waiting, {}
        count = 0
        try:
            for key in keys:
                versions = await self._reissue_key(key, self._author.clock.latest)
                count += len(versions)
                for version in versions:
                    self._author.clock.observe(version)
        except BzzzError as error:
            self._waiting |= keys
            log.warning("writes of a clock that ran ahead could not be issued again yet: %s", error.message)
        self._wait_seconds = AGAIN_SECONDS if count else min(2.0 * self._wait_seconds, WAIT_SECONDS_MAX)
        self._wait_until = now + self._wait_seconds

    async def _reissue_all(self) -> int:
        """Issue every own write again that is ahead, and set back the clock of versions; return how many there were."""
        after, latest, count = 0, 0, 0
        while changes := await self._store.local_writes(after=after, limit=PAGE):
            done: set[bytes] = set()
            for change in changes:
                if not self._is_ahead(change.version):
                    latest = max(latest, change.version)
                elif change.author == self._key.peer_id and change.key not in done:
                    versions = await self._reissue_key(change.key, latest)
                    done.add(change.key)
                    latest = max([latest, *versions])
                    count += len(versions)
            after = changes[-1].sequence
        if self._is_ahead(self._author.clock.latest):
            self._author.clock.rewind(latest)
        if count:
            log.warning(
                "this node's clock had run ahead: %d of its writes were issued again under the right time", count
            )
        return count

    async def _reissue_key(self, key: bytes, latest: int) -> list[int]:
        """Issue the own writes of one key again that are ahead, in order, later than `latest`; return the new versions.

        The key's lock is released now and then. A writer finds a short chain reissued whole or not at all; a version
        that is written on top of half a longer chain names both its ends, and is issued again later itself.
        """
        new: list[int] = []
        waiting: set[bytes] = set()
        while digests := deque([digest for digest in await self._own_ahead(key) if digest not in waiting]):
            while digests:
                async with self._author.locks.hold(key, trio.current_time() + LOCK_SECONDS, disk_seconds=0.0):
                    until = trio.current_time() + HOLD_SECONDS
                    while digests and trio.current_time() < until:
                        old = digests.popleft()
                        version = await self._reissue(old, max([latest, *new[-1:]]))
                        if version is None:
                            waiting.add(old)
                        else:
                            new.append(version)
        if waiting:
            self._waiting[key] = None
        return new

    async def _own_ahead(self, key: bytes) -> list[bytes]:
        """This node's own versions of a key that are ahead and were written here, earliest first."""
        found: list[bytes] = []
        after = 0
        while versions := await self._store.versions(key, after=after, limit=PAGE):
            for version in versions:
                is_ours = version.author == self._key.peer_id and version.reissued_as is None
                standing = await self._store.standing(digest=version.digest) if is_ours else None
                is_stuck = standing is not None and (not standing.acknowledged or version.digest in self._refusals)
                if is_stuck and self._is_ahead(version.version):
                    found.append(version.digest)
            after += len(versions)
        return found

    async def _reissue(self, digest: bytes, latest: int) -> int | None:
        """Issue one write again, later than `latest`; return its version, or None when it has to wait.

        It waits when it stands on another author's version that is as far ahead: it must be later than that.
        """
        old = await self._store.by_digest(digest)
        if not isinstance(old, Envelope):
            return None
        parents = [await self._store.latest_reissue(digest) for digest in old.parents]
        versions = [parent.version for digest in parents if (parent := await self._store.by_digest(digest))]
        if any(map(self._is_ahead, versions)):
            return None
        version = HybridClock(latest).read(self._now_ms(), after=versions)
        if self._is_ahead(version):  # the clock went back again: this would repeat without end
            return None
        replacement = self._replacement(old, parents, version)
        holders = self._members.wanted(old.key)
        await self._store.reissue(old.digest, replacement, holders, now_ms=self._now_ms())
        self._refusals.discard(old.digest)
        return version

    def _replacement(self, old: Envelope, parents: list[bytes], version: int) -> Envelope:
        def sealed(meta: Mapping[str, str]) -> Envelope:
            return seal(
                self._key,
                address=old.address,
                content=old.content,
                content_type=old.content_type,
                version=version,
                parents=parents,
                meta=meta,
                deleted=old.deleted,
            )

        try:
            reissued = (old.digest, *old.reissues)[:REISSUES_MAX]
            return sealed({**old.meta, REISSUES: " ".join(digest.hex() for digest in reissued)})
        except (TooLarge, InvalidPayload):  # no room for the entry in meta: the store knows the replaced version anyway
            return sealed(old.meta)
