"""Mends what was written under a clock that ran ahead: the same content, under a version that others can take.

A node whose clock was far ahead wrote versions that every peer refuses until their moment has come, maybe years away.
Once its clock is right again, each of its own such writes is issued anew, in order, on top of the same parents (or of
what stands in for them), with `meta.reissues` naming the old one, which ends it as a head wherever it was taken
(`protocols/heads.py`); receipts follow. A clock that is mended in several steps has a write issued several times,
and a peer may have taken any of them: so the last names them all. Late, never lost. What another author signed cannot
be signed again here: it stays parked, and shown.

A clock that was put back by mistake makes everything look ahead: so what a peer has taken is issued again only if
another one refuses it as too far ahead.
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
from protocols.envelope import REISSUES, REISSUES_MAX, Envelope, seal
from protocols.errors import BzzzError, InvalidPayload, TooLarge
from protocols.keys import PrivateKey

log = logging.getLogger(__name__)

CHECK_SECONDS = 1.0
AGAIN_SECONDS = 5.0
"""When to look once more after the clock was mended: a write that was being made then is in the store by now."""
QUIET_SECONDS = 30.0
"""How long nobody's asking counts once there was nothing to issue again: it costs a look at every own write."""
WAIT_SECONDS_MAX = 300.0
"""How long it takes at most until a write that waits for somebody else's is looked at again."""
TURN_SECONDS = 5.0
"""How long writers of the same address may keep us waiting."""
HOLD_SECONDS = 0.03
"""How long its writers wait for us, in turn."""
REFUSED_MAX = 65_536
"""How many refusals are remembered; what is forgotten is refused again."""
PAGE = 500


class ClockRefusals:
    """Versions of this node that a peer refused as too far ahead, and that this node's own clock calls ahead as well.

    Hinted handoff adds them, the reissuer waits for them.
    """

    def __init__(self) -> None:
        self._digests: dict[bytes, None] = {}
        self._is_asked = False
        self._asked = trio.Event()
        self._quiet_until = -inf

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._digests

    def add(self, digest: bytes) -> None:
        """A new refusal asks for a look at once; one that is known already asks only after the quiet time."""
        is_new = digest not in self._digests
        if is_new:
            self._digests[digest] = None
            while len(self._digests) > REFUSED_MAX:
                del self._digests[next(iter(self._digests))]
        if is_new or trio.current_time() >= self._quiet_until:
            self._is_asked = True
            self._asked.set()

    def discard(self, digest: bytes) -> None:
        """The version was issued again."""
        self._digests.pop(digest, None)

    def keep_quiet_until(self, time: float) -> None:
        self._quiet_until = time

    def take_request(self) -> bool:
        """Whether a look was asked for since the last call."""
        is_asked, self._is_asked = self._is_asked, False
        return is_asked

    async def wait(self, seconds: float) -> None:
        """Wait until a look is asked for, for so long at most."""
        self._asked = trio.Event()
        with trio.move_on_after(seconds):
            await self._asked.wait()


class Reissuer:
    """Watches the node's own clock against the versions it gave out."""

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
        self._look_at = inf
        self._waiting: dict[bytes, None] = {}
        """Keys with writes that stand on somebody else's version, as far ahead as they are."""
        self._wait_seconds = AGAIN_SECONDS
        self._wait_until = -inf

    async def run(self) -> None:
        while True:
            now = trio.current_time()
            is_ahead = self._is_ahead(self._author.clock.latest)
            if self._refusals.take_request():
                self._look_at = min(self._look_at, now)
            if is_ahead or now >= self._look_at:
                self._look_at = now + AGAIN_SECONDS if is_ahead else inf
                try:
                    if not await self._reissue_all():
                        self._refusals.keep_quiet_until(now + QUIET_SECONDS)
                except BzzzError as error:
                    self._look_at = now
                    log.warning("writes of a clock that ran ahead could not be issued again yet: %s", error.message)
            elif self._waiting and now >= self._wait_until:
                await self._look_at_waiting(now)
            await self._refusals.wait(CHECK_SECONDS)

    def _is_ahead(self, version: int) -> bool:
        return ahead_ms(version, self._now_ms()) > AHEAD_MS_MAX

    async def _look_at_waiting(self, now: float) -> None:
        """What stood on somebody else's version, as far ahead: that may have been issued again since."""
        keys, self._waiting = self._waiting, {}
        count = 0
        try:
            for key in keys:
                versions = await self._mend(key, self._author.clock.latest)
                count += len(versions)
                for version in versions:
                    self._author.clock.observe(version)
        except BzzzError as error:
            self._waiting |= keys
            log.warning("writes of a clock that ran ahead could not be issued again yet: %s", error.message)
        self._wait_seconds = AGAIN_SECONDS if count else min(2.0 * self._wait_seconds, WAIT_SECONDS_MAX)
        self._wait_until = now + self._wait_seconds

    async def _reissue_all(self) -> int:
        """Issue again whatever is ahead, and put the clock back that gave it out; answer how many there were."""
        after, latest, count = 0, 0, 0
        while changes := await self._store.local_writes(after=after, limit=PAGE):
            mended: set[bytes] = set()
            for change in changes:
                if not self._is_ahead(change.version):
                    latest = max(latest, change.version)
                elif change.author == self._key.peer_id and change.key not in mended:
                    versions = await self._mend(change.key, latest)
                    mended.add(change.key)
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

    async def _mend(self, key: bytes, latest: int) -> list[int]:
        """Issue again what is ahead of one key, in order, later than `latest`; answer the new versions.

        In turns with its writers: a short chain they find mended or not, and what is written on top of half a longer
        one names both its ends, and is issued again in its turn.
        """
        new: list[int] = []
        waiting: set[bytes] = set()
        while olds := deque([digest for digest in await self._ahead_of(key) if digest not in waiting]):
            while olds:
                async with self._author.turn(key, trio.current_time() + TURN_SECONDS):
                    until = trio.current_time() + HOLD_SECONDS
                    while olds and trio.current_time() < until:
                        old = olds.popleft()
                        version = await self._reissue(old, max([latest, *new[-1:]]))
                        if version is None:
                            waiting.add(old)
                        else:
                            new.append(version)
        if waiting:
            self._waiting[key] = None
        return new

    async def _ahead_of(self, key: bytes) -> list[bytes]:
        """This node's own versions of a key that are ahead and were written here, the first one first."""
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
        """Issue one write again, later than `latest`; answer its version. None: it has to wait for its moment.

        That is so when it stands on a version of somebody else's that is as far ahead: it must be later than that.
        """
        old = await self._store.by_digest(digest)
        if not isinstance(old, Envelope):
            return None
        parents = [await self._store.stand_in(digest) for digest in old.parents]
        versions = [parent.version for digest in parents if (parent := await self._store.by_digest(digest))]
        if any(map(self._is_ahead, versions)):
            return None
        version = HybridClock(latest).read(self._now_ms(), after=versions)
        if self._is_ahead(version):  # the clock went back once more meanwhile: nothing would be won, again and again
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
        except (TooLarge, InvalidPayload):  # so full that the note does not fit: the store knows it anyway
            return sealed(old.meta)
