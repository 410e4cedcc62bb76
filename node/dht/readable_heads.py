"""Readable heads: what a reader of a key is given, and a writer writes on top of, by the content that this node holds.

The rule is `protocols/policy/readable_heads.py`; here the versions come from the store. A key whose heads are all held,
which is nearly every key, costs one look at each head.

A version whose content was asked for, and which no holder had, is remembered for a while: the next reads do not wait
for the holders again, and health counts it.
"""

from math import inf
from typing import NamedTuple

import trio

from node.dht.base import Answer, Provenance
from node.store.base import Store
from protocols.envelope import Envelope, Notice, order_key
from protocols.errors import Unavailable
from protocols.policy.readable_heads import ReadableWalk

Heads = tuple[Envelope | Notice, ...]

AGAIN_SECONDS = 1.0
"""How long readers are answered without asking again for content that no holder had."""
COUNTED_SECONDS = 60.0
"""How long health counts content that no holder had, after it was asked for."""
ASKED_MAX = 1_024
"""Keys whose missing content is remembered."""
KEPT_MAX = 16
"""Keys for which the readable heads are kept until they change."""
LISTED_MAX = 64
"""Versions without content that an answer names."""
PAGES = (64, 1_000, 1_000, 1_000)
"""Versions in the pages that are read from the end of a history. In what is before them, reissued versions among them
or not, the latest held version alone is looked for."""


class ReadableView(NamedTuple):
    """The readable heads of a key, the latest first and with its content, and the versions without content that end
    none of them, the latest first."""

    heads: Heads
    missing: tuple[Notice, ...] = ()

    @property
    def is_behind(self) -> bool:
        """Whether a version without content is later than every readable head."""
        return bool(self.missing) and not (self.heads and order_key(self.heads[0]) > order_key(self.missing[0]))

    def answer(self, provenance: Provenance) -> Answer:
        """The answer to a reader, marked where a version without content is known."""
        provenance = provenance._replace(siblings=max(0, len(self.heads) - 1))
        if not self.missing:
            return Answer(self.heads, provenance)
        reason = f"{provenance.reason}; {self._in_words}" if provenance.reason else self._in_words
        is_degraded = provenance.is_degraded or (self.is_behind and bool(self.heads or provenance.source == "local"))
        return Answer(
            self.heads, provenance._replace(is_degraded=is_degraded, reason=reason), self.missing[:LISTED_MAX]
        )

    @property
    def _in_words(self) -> str:
        author = self.missing[0].author
        if len(self.missing) == 1:
            which = "a later" if self.is_behind else "another"
            return f"{which} version by {author} is known and its content is not"
        which = "later" if self.is_behind else "other"
        return f"{len(self.missing)} {which} versions, the latest by {author}, are known and their content is not"


class ReadableHeads:
    """One for each node: it outlives the backends, which are made anew at each change of flags."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._asked: dict[bytes, dict[bytes, float]] = {}
        """By key: versions whose content no holder had, and when they were asked."""
        self._kept: dict[bytes, tuple[Heads, ReadableView]] = {}
        """A store gives the same tuple of heads until a version of the key changes."""

    async def view(self, key: bytes, heads: Heads) -> ReadableView:
        """The readable heads of a key, which has these heads in the store now."""
        if all(type(head) is Envelope for head in heads):
            return ReadableView(heads)
        kept = self._kept.get(key)
        if kept is not None and kept[0] is heads:
            return kept[1]
        view = await self._walk(key, heads)
        self._kept.pop(key, None)
        self._kept[key] = heads, view
        while len(self._kept) > KEPT_MAX:
            del self._kept[next(iter(self._kept))]
        return view

    async def _walk(self, key: bytes, heads: Heads) -> ReadableView:
        walk = ReadableWalk([head.digest for head in heads])
        found: dict[bytes, Notice] = {}
        end = await self._store.count_versions(key)
        for page in PAGES:
            if not end or walk.is_done or not walk.has_visits_left:
                break
            start = max(0, end - page)
            for version in reversed(await self._store.versions(key, after=start, limit=end - start)):
                if version.reissued_as is None and not walk.is_done:
                    walk.visit(version.digest, version.version, version.notice.parents, is_held=version.is_held)
                    if version.digest in (*walk.readable[-1:], *walk.missing[-1:]):
                        found[version.digest] = version.notice
            end = start
        if end and not walk.readable and (latest := await self._store.latest_held(key)) is not None:
            return ReadableView((await self._held(latest.digest),), tuple(found[digest] for digest in walk.missing))
        by_digest = {head.digest: head for head in heads}
        readable = [by_digest.get(digest) or found[digest] for digest in walk.readable]
        if readable and not isinstance(readable[0], Envelope):
            readable[0] = await self._held(readable[0].digest)
        return ReadableView(tuple(readable), tuple(found[digest] for digest in walk.missing))

    async def _held(self, digest: bytes) -> Envelope:
        item = await self._store.by_digest(digest)
        if not isinstance(item, Envelope):  # it was found damaged when it was read
            raise Unavailable(f"the content of version {digest.hex()} is damaged on this machine; try again")
        return item

    # -- content that was asked for -----------------------------------------------------------------------------

    def asked(self, key: bytes, missing: tuple[Notice, ...]) -> None:
        """The holders of a key were asked for its content, and these versions are still without."""
        self._asked.pop(key, None)
        if missing:
            now = trio.current_time()
            self._asked[key] = {version.digest: now for version in missing}
            while len(self._asked) > ASKED_MAX:
                del self._asked[next(iter(self._asked))]

    def were_asked(self, key: bytes, missing: tuple[Notice, ...]) -> bool:
        """Whether all of these were asked for a moment ago."""
        asked, since = self._asked.get(key, {}), trio.current_time() - AGAIN_SECONDS
        return all(asked.get(version.digest, -inf) >= since for version in missing)

    def count(self) -> int:
        """How many versions were asked for lately whose content no holder had."""
        since = trio.current_time() - COUNTED_SECONDS
        for key in [key for key, asked in self._asked.items() if max(asked.values()) < since]:
            del self._asked[key]
        return sum(map(len, self._asked.values()))
