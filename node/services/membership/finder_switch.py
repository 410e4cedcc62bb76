"""A finder under a switch: it runs while its flag is on, and not a moment longer."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

import trio

from discovery.finder import Finder, FinderHealth, OnSighted


class FinderSwitch:
    """`is_on` says whether it may run; `changed` waits until that may be another answer."""

    def __init__(self, finder: Finder, is_on: Callable[[], bool], changed: Callable[[], Awaitable[None]]) -> None:
        self._finder = finder
        self._is_on = is_on
        self._changed = changed

    def health(self) -> FinderHealth:
        """What the finder tells; while it is off nothing is wrong with it."""
        told = self._finder.health()
        return told if self._is_on() else replace(told, faults=())

    async def run(self, on_sighted: OnSighted) -> None:
        while True:
            async with trio.open_nursery() as nursery:
                is_on = self._is_on()
                if is_on:
                    nursery.start_soon(self._finder.run, on_sighted)
                while self._is_on() == is_on:
                    await self._changed()
                nursery.cancel_scope.cancel()
