"""Temporal walk: finds the version that a temporal part names, from the nearer end of the history.

It costs no more for a long history than for a short one: near an end it is a walk from there, and the store knows the
place of a version that is far from both.

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

    versions: tuple[VersionRef, ...]
    """The version; then those that would be found if it were left out, and so on: as many as asked for at most."""
    left_out: int
    """How many versions were left out."""
    passed: frozenset[VersionRef]
    """Those of the `uncertain` versions that were counted."""


async def find(
    store: Versions, key: bytes, temporal: Temporal, without: Set[VersionRef] = frozenset(),
    uncertain: Set[VersionRef] = frozenset(), count: int = 1,
) -> FoundVersion:  # fmt: skip
    """The version, not counting those in `without`, which are versions of the key. Raises `OutOfRange`, with the number
    of versions, when there is none."""
    walk = partial(_nth, store, key, without, uncertain, count)
    found: FoundVersion | None
    match temporal:
        case AsOf(unix_ms):
            beyond = VersionRef((unix_ms + 1) << COUNTER_BITS, "", b"") if unix_ms < MS_MAX else None
            found = None if unix_ms < 0 else await walk(0, is_backwards=True, beyond=beyond)
        case Head():
            found = await walk(0, is_backwards=True)
        case Back(n):
            found = await walk(n, is_backwards=True)
        case First():
            found = await walk(0, is_backwards=False)
        case Number(n):
            found = await walk(n - 1, is_backwards=False)
        case Forward(n):
            found = await walk(n, is_backwards=False)
    if found is None:
        raise out_of_range(temporal, await store.count_versions(key, with_reissued=False) - len(without))
    return found


async def _nth(
    store: Versions, key: bytes, without: Set[VersionRef], uncertain: Set[VersionRef], count: int,
    number: int, *, is_backwards: bool, beyond: VersionRef | None = None,
) -> FoundVersion | None:  # fmt: skip
    """The version behind so many others, counted from a place in the total order; at first from one end."""
    left, left_out, passed = number, 0, set[VersionRef]()
    if number > PAGE:
        beyond = last = await store.nth(key, number - 1, is_backwards=is_backwards)
        if last is None:
            return None
        before = {ref for ref in without | uncertain if (ref >= last if is_backwards else ref <= last)}
        passed = before - without
        left = left_out = len(before) - len(passed)  # these do not count: so many more are passed over
    most = len(without) + count
    while page := await store.walk(key, beyond=beyond, is_backwards=is_backwards, limit=min(PAGE, left + most)):
        beyond = page[-1]
        for place, version in enumerate(page):
            if version in without:
                left_out += 1
            elif left:
                left -= 1
                if version in uncertain:
                    passed.add(version)
            else:
                versions = [each for each in page[place:] if each not in without]
                return FoundVersion(tuple(versions[:count]), left_out, frozenset(passed))
    return None
