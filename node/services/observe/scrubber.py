"""Scrubber: checks what no caller reads of the store's file, and fetches again what was damaged.

A disk changes a byte long before the version with it is read. So the store is gone through slowly, from the first
version to the last, again and again. Content that is not the one of its digest is set aside by the store, which has
its notice then; here it is asked for by its digest, and the answer of a holder is merged like any other.
"""

import logging

import trio

from node.dht.base import DHT
from node.store.base import Store
from protocols.errors import BzzzError

log = logging.getLogger(__name__)

PAGE_SECONDS = 0.5
"""Between two pages: some hundred versions a second are checked, which takes about a hundredth of a processor."""
ROUND_SECONDS = 3600.0
"""Between the end of a round and the next one."""
FETCH_SECONDS = 2.0
"""How often holders are asked for what is set aside."""
FETCHED_MAX = 64
"""How many versions are asked for each time."""


class Scrubber:
    """Does nothing for a store without files."""

    def __init__(self, store: Store, dht: DHT) -> None:
        self._store = store
        self._dht = dht

    async def run(self) -> None:
        """Check and fetch until cancelled."""
        if not self._store.damage.is_possible:
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._check)
            nursery.start_soon(self._fetch)

    async def _check(self) -> None:
        after = 0
        while True:
            await trio.sleep(PAGE_SECONDS)
            try:
                until = await self._store.check(after=after)
            except BzzzError as error:
                log.warning("the store cannot be checked now: %s", error.message)
                await trio.sleep(ROUND_SECONDS / 60)
                continue
            if until is None:
                after = 0
                await trio.sleep(ROUND_SECONDS)
            else:
                after = until

    async def _fetch(self) -> None:
        while True:
            await trio.sleep(FETCH_SECONDS)
            wanted = self._store.damage.set_aside
            for digest, key in list(wanted.items())[:FETCHED_MAX]:
                try:
                    await self._dht.get_version(key, digest)
                except BzzzError as error:
                    log.debug("version %s is damaged here and cannot be fetched now: %s", digest.hex(), error.message)
                if digest in wanted:  # the next time it is asked for after the others
                    wanted[digest] = wanted.pop(digest)
