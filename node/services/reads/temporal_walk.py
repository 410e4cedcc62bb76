"""Temporal walk: finds the version that a temporal part names, from the nearer end of the history.

It costs as many steps as the temporal part counts, and not as many as there are versions: `~~1` reads two versions of
an address that has a million.
"""

from node.dht.base import Extent
from node.store.versions import VersionRef, Versions
from protocols.clock import COUNTER_BITS, MS_MAX
from protocols.temporal import AsOf, Back, First, Forward, Head, Number, Temporal, out_of_range

PAGE = 1_000


def extent_of(temporal: Temporal) -> Extent | None:
    """The part of a history that must be known to find the version; None: all of it may matter."""
    match temporal:
        case First():
            return Extent(1, is_from_end=False)
        case Number(n):
            return Extent(n, is_from_end=False)
        case Forward(n):
            return Extent(n + 1, is_from_end=False)
        case Back(n):
            return Extent(n + 1, is_from_end=True)
        case _:
            return None


async def find(store: Versions, key: bytes, temporal: Temporal) -> bytes:
    """The digest of the version. Raises `OutOfRange`, with the number of versions, when there is no such version."""
    match temporal:
        case AsOf(unix_ms):
            beyond = VersionRef((unix_ms + 1) << COUNTER_BITS, "", b"") if unix_ms < MS_MAX else None
            found = await store.walk(key, beyond=beyond, is_backwards=True, limit=1) if unix_ms >= 0 else []
            if found:
                return found[0].digest
            raise out_of_range(temporal, await store.count_versions(key))
        case Head():
            return await _nth(store, key, temporal, 0, is_backwards=True)
        case Back(n):
            return await _nth(store, key, temporal, n, is_backwards=True)
        case First():
            return await _nth(store, key, temporal, 0, is_backwards=False)
        case Number(n):
            return await _nth(store, key, temporal, n - 1, is_backwards=False)
        case Forward(n):
            return await _nth(store, key, temporal, n, is_backwards=False)


async def _nth(store: Versions, key: bytes, temporal: Temporal, number: int, *, is_backwards: bool) -> bytes:
    """The version behind so many others, counted from one end."""
    total = await store.count_versions(key)
    if number >= total:  # no use in walking all of them
        raise out_of_range(temporal, total)
    left = number
    beyond: VersionRef | None = None
    while page := await store.walk(key, beyond=beyond, is_backwards=is_backwards, limit=min(PAGE, left + 1)):
        if left < len(page):
            return page[left].digest
        left -= len(page)
        beyond = page[-1]
    raise out_of_range(temporal, number - left)
