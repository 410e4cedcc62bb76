"""Mends what was written under a clock that ran ahead: the same content, under a version that others can take.

A node whose clock was far ahead wrote versions that every peer refuses until their moment has come, maybe years away.
Once its clock is right again, each of its own such writes is issued anew, in order, on top of the same parents (or of
what stands in for them), with `meta.reissues` naming the old one; receipts follow. Late, never lost. What another
author signed cannot be signed again here: it stays parked, and shown.
"""

import logging
from collections.abc import Callable

import trio

from node.services.author import Author
from node.store.base import Change, Store
from node.swarm.members import Members
from protocols.clock import AHEAD_MS_MAX, ahead_ms
from protocols.codes import BzzzError
from protocols.envelope import Envelope, seal
from protocols.keys import PrivateKey

log = logging.getLogger(__name__)

CHECK_SECONDS = 1.0
PAGE = 500


class Reissuer:
    """Watches the node's own clock against the versions it gave out."""

    def __init__(
        self, store: Store, author: Author, members: Members, key: PrivateKey, *, now_ms: Callable[[], int]
    ) -> None:
        self._store = store
        self._author = author
        self._members = members
        self._key = key
        self._now_ms = now_ms
        self._asked = trio.Event()

    def look(self) -> None:
        """Somebody refused a version as too far ahead: see whether it is ahead of our own clock, too."""
        self._asked.set()

    async def run(self) -> None:
        while True:
            if self._is_ahead(self._author.clock.latest):
                try:
                    await self._reissue_all()
                except BzzzError as error:
                    log.warning("writes of a clock that ran ahead could not be issued again yet: %s", error.message)
            self._asked = trio.Event()
            with trio.move_on_after(CHECK_SECONDS):
                await self._asked.wait()

    def _is_ahead(self, version: int) -> bool:
        return ahead_ms(version, self._now_ms()) > AHEAD_MS_MAX

    async def _reissue_all(self) -> None:
        """Between the last page and the clock's return there is no await: no version slips in between."""
        after, latest, count = 0, 0, 0
        while changes := await self._store.own_writes(after=after, limit=PAGE):
            for change in changes:
                if self._is_ahead(change.version) and change.author == self._key.peer_id:
                    latest = max(latest, await self._reissue(change, latest))
                    count += 1
            after = changes[-1].sequence
        self._author.clock.rewind(latest)
        if count:
            log.warning(
                "this node's clock had run ahead: %d of its writes were issued again under the right time", count
            )

    async def _reissue(self, change: Change, latest: int) -> int:
        """Issue one write again, later than `latest`; answer its version."""
        old = await self._store.by_digest(change.digest)
        if not isinstance(old, Envelope):
            return latest
        parents = [await self._stand_in(digest) for digest in old.parents]
        known = [parent for parent in [await self._store.by_digest(digest) for digest in parents] if parent]
        clock = type(self._author.clock)(latest)
        replacement = seal(
            self._key,
            address=old.address,
            content=old.content,
            content_type=old.content_type,
            version=clock.read(self._now_ms(), after=[parent.version for parent in known]),
            parents=parents,
            meta={**old.meta, "reissues": old.digest.hex()},
            deleted=old.deleted,
        )
        holders = self._members.wanted(old.key)
        await self._store.reissue(old.digest, replacement, holders, now_ms=self._now_ms())
        return replacement.version

    async def _stand_in(self, digest: bytes) -> bytes:
        standing = await self._store.standing(digest=digest)
        return standing.digest if standing else digest
