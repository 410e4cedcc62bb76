"""Freed memory goes back to the system once, after the growth has ended; long-lived objects are frozen."""

import gc

import pytest
import trio
import trio.testing

from node.process import gc as memory

MIB = 1 << 20


async def test_memory_is_trimmed_once_after_its_growth_has_ended(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    levels = iter([100, 102, 180, 260, 340, 341, 120, 121, 160, 161, 90, *[100] * 20])
    seen: list[int] = []
    trimmed_at: list[int] = []

    def resident(page_bytes: int) -> int:
        seen.append(next(levels))
        return seen[-1] * MIB

    # Private, here and below: the memory of this process cannot be made to grow and shrink by exact steps.
    monkeypatch.setattr(memory, "_resident", resident)
    monkeypatch.setattr(memory, "_trim", lambda: lambda: trimmed_at.append(seen[-1]))
    with trio.move_on_after(12 * memory.LOOK_SECONDS):
        await memory.run()
    assert trimmed_at == [341]


async def test_without_malloc_trim_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_trim", lambda: None)
    await memory.run()


def test_resident_memory_is_read_in_bytes() -> None:
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
