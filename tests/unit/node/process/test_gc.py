"""Freed memory goes back to the system after the growth has ended; long-lived objects are frozen."""

import gc
from collections.abc import Iterable
from itertools import pairwise

import pytest
import trio
import trio.testing

from node.process import gc as memory

MIB = 1 << 20


async def trims(monkeypatch: pytest.MonkeyPatch, levels: Iterable[int]) -> list[tuple[int, int]]:
    """Let the process hold these MiB at one look after the other; return the looks with a trim, and what was held."""
    left = iter(levels)
    seen: list[int] = []
    trimmed: list[tuple[int, int]] = []
    looks = trio.Event()

    def resident(page_bytes: int) -> int:
        level = next(left, None)
        if level is None:
            looks.set()
        else:
            seen.append(level)
        return seen[-1] * MIB

    # Private, here and below: the memory of this process cannot be made to grow and shrink by exact steps.
    monkeypatch.setattr(memory, "_resident", resident)
    monkeypatch.setattr(memory, "_trim", lambda: lambda: trimmed.append((len(seen), seen[-1])))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(memory.run)
        await looks.wait()
        nursery.cancel_scope.cancel()
    return trimmed


async def test_memory_is_trimmed_once_after_its_growth_has_ended(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    levels = [100, 102, 180, 260, 340, 341, 120, 121, 145, 146, 90, *[100] * 20]
    assert [held for _, held in await trims(monkeypatch, levels)] == [341]


async def test_memory_that_was_in_use_at_a_trim_is_trimmed_again_later_and_later(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    levels = [100, 340, *[341] * 30, 120, *[121] * 10]
    trimmed = await trims(monkeypatch, levels)
    assert {held for _, held in trimmed} == {341}
    pauses = [later - earlier for (earlier, _), (later, _) in pairwise(trimmed)]
    assert pauses == sorted(pauses)
    assert len(trimmed) > 2
    assert pauses[-1] > 2 * pauses[0]


async def test_without_malloc_trim_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_trim", lambda: None)
    await memory.run()


def test_resident_memory_is_read_in_bytes() -> None:
    # private: its effect is a call of malloc_trim, which nothing shows
    assert 5 * MIB < memory._resident(4096) < 64_000 * MIB


def test_frozen_objects_are_skipped_by_collections() -> None:
    thresholds, before = gc.get_threshold(), gc.get_freeze_count()
    try:
        memory.freeze()
        assert gc.get_freeze_count() > before + 10_000
        assert gc.collect() < 10_000
        assert len(gc.get_objects()) < 10_000
        assert gc.get_threshold() > thresholds
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)
