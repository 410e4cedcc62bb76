"""One look-up for many who ask at once.

It runs in a task of its own: who asked first may be cancelled, or give up, and nobody else fails or waits longer for
it. It is as long as its own deadline allows, so there are never more of them than callers had in that time.
"""

import copy
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

import trio

from protocols.errors import BzzzError, Internal, Unavailable
from protocols.policy.cache import CacheLoad

log = logging.getLogger(__name__)

V = TypeVar("V")


class Flight(Generic[V]):
    """One that is under way, or over. `reading` says whether what it finds is still wanted."""

    __slots__ = ("_error", "_over", "_value", "reading", "started")

    def __init__(self, reading: CacheLoad) -> None:
        self.reading = reading
        self.started = trio.current_time()
        self._over = trio.Event()
        self._value: V | None = None
        self._error: BzzzError | None = None

    async def wait(self) -> V:
        """What it found. Raises what it raised, to each waiter an error of its own."""
        await self._over.wait()
        if self._error is not None:
            raise copy.copy(self._error)
        assert self._value is not None
        return self._value

    async def run(self, look_up: Callable[[], Awaitable[V]]) -> None:
        try:
            self._value = await look_up()
        except BzzzError as error:
            self._error = error
        except Exception as error:  # nobody else's task may end for it
            log.exception("a look-up failed")
            self._error = Internal(f"the look-up failed ({type(error).__name__}); the node's log says where")
        except BaseException:
            self._error = Unavailable("the node is being stopped")
            raise
        finally:
            self._over.set()


class SingleFlight(Generic[V]):
    """Those under way, by name. Without `run`, none is."""

    def __init__(self) -> None:
        self._nursery: trio.Nursery | None = None
        self._all: dict[Hashable, Flight[V]] = {}

    @property
    def is_running(self) -> bool:
        return self._nursery is not None

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None  # before it closes: who asks then looks up alone

    def get(self, name: Hashable) -> Flight[V] | None:
        """The one that who asks now may wait for: nothing changed since it began."""
        lookup = self._all.get(name)
        return None if lookup is None or lookup.reading.is_stale else lookup

    def begin(self, name: Hashable, reading: CacheLoad, look_up: Callable[[], Awaitable[V]]) -> Flight[V]:
        """Look something up; who asks for it later may wait for this one."""
        assert self._nursery is not None, "look-ups are shared while `run` does"
        lookup = self._all[name] = Flight[V](reading)
        self._nursery.start_soon(self._run, name, lookup, look_up)
        return lookup

    async def _run(self, name: Hashable, lookup: Flight[V], look_up: Callable[[], Awaitable[V]]) -> None:
        try:
            await lookup.run(look_up)
        finally:
            if self._all.get(name) is lookup:
                del self._all[name]
