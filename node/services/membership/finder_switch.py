"""Finder switch: runs a finder while its flag is on."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

import trio

from discovery.finder import Finder, FinderHealth, Sightings


class FinderSwitch:
    """`is_on` says whether the finder may run; `changed` waits until that answer may be another one."""

    def __init__(self, finder: Finder, is_on: Callable[[], bool], changed: Callable[[], Awaitable[None]]) -> None:
        self._finder = finder
        self._is_on = is_on
        self._changed = changed

    def health(self) -> FinderHealth:
        """The health of the finder; while it is off, without sources and faults."""
        health = self._finder.health()
        return health if self._is_on() else replace(health, is_on=False, sources=0, faults=())

    async def run(self, sightings: Sightings) -> None:
        while True:
            async with trio.open_nursery() as nursery:
                is_on = self._is_on()
                if is_on:
                    nursery.start_soon(self._finder.run, sightings)
                while self._is_on() == is_on:
                    await self._changed()
                nursery.cancel_scope.cancel()
