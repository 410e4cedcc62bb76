"""Temporal walk: finds the version that a temporal part names, from the nearer end of the history.

It costs as many steps as the temporal part counts, and not as many as there are versions: `~~1` reads two versions of
an address that has a million.

Versions whose content is not to be had are left out: `~~1` is the version before the one that a plain read answers.
"""

from collections.abc import Set
from functools import partial
from typing import NamedTuple

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


class FoundVersion(NamedTuple):
    """A version, and what was met on the way to it."""

    digests: tuple[bytes, ...]
    """Its digest; then those of the versions that would be found if it were left out, and so on: as many as asked for
    at most."""
    left_out: int
    """How many versions were left out."""
    passed: frozenset[bytes]
    """Those of the `uncertain` versions that were counted."""


async def find(
    store: Versions, key: bytes, temporal: Temporal, without: Set[bytes] = frozenset(),
    uncertain: Set[bytes] = frozenset(), count: int = 1,
) -> FoundVersion:  # fmt: skip
    """The version, not counting those in `without`, which are versions of the key. Raises `OutOfRange`, with the number
    of versions, when there is none."""
    walk = partial(_nth, store, key, temporal, without, uncertain, count)
    match temporal:
        case AsOf(unix_ms):
            beyond = VersionRef((unix_ms + 1) << COUNTER_BITS, "", b"") if unix_ms < MS_MAX else None
            if unix_ms < 0:
                raise out_of_range(temporal, await store.count_versions(key) - len(without))
            return await walk(0, is_backwards=True, beyond=beyond)
        case Head():
            return await walk(0, is_backwards=True)
        case Back(n):
            return await walk(n, is_backwards=True)
        case First():
            return await walk(0, is_backwards=False)
        case Number(n):
            return await walk(n - 1, is_backwards=False)
        case Forward(n):
            return await walk(n, is_backwards=False)


async def _nth(
    store: Versions, key: bytes, temporal: Temporal, without: Set[bytes], uncertain: Set[bytes], count: int,
    number: int, *, is_backwards: bool, beyond: VersionRef | None = None,
) -> FoundVersion:  # fmt: skip
    """The version behind so many others, counted from a place in the total order; at first from one end."""
    if number >= (total := await store.count_versions(key) - len(without)):  # no use in walking all of them
        raise out_of_range(temporal, total)
    is_from_end, left, left_out, most = beyond is None, number, 0, len(without) + count
    passed: set[bytes] = set()
    while page := await store.walk(key, beyond=beyond, is_backwards=is_backwards, limit=min(PAGE, left + most)):
        beyond = page[-1]
        for place, version in enumerate(page):
            if version.digest in without:
                left_out += 1
            elif left:
                left -= 1
                if version.digest in uncertain:
                    passed.add(version.digest)
            else:
                digests = [each.digest for each in page[place:] if each.digest not in without]
                return FoundVersion(tuple(digests[:count]), left_out, frozenset(passed))
    raise out_of_range(temporal, number - left if is_from_end else total)
