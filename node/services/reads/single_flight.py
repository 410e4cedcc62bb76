"""Single flight: one look-up for many callers that ask for the same thing at once.

A look-up runs in a task of its own: when its first caller is cancelled or gives up, no other caller fails or waits
longer. Each look-up ends by its own deadline, so there are never more of them than callers within that time.
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
    """A look-up under way, or ended. `load` says whether the key changed since it began."""

    __slots__ = ("_ended", "_error", "_value", "load", "started")

    def __init__(self, load: CacheLoad) -> None:
        self.load = load
        self.started = trio.current_time()
        self._ended = trio.Event()
        self._value: V | None = None
        self._error: BzzzError | None = None

    async def wait(self) -> V:
        """Return what it found, or raise a copy of its error: each waiter gets an error object of its own."""
        await self._ended.wait()
        if self._error is not None:
            raise copy.copy(self._error)
        assert self._value is not None
        return self._value

    async def run(self, look_up: Callable[[], Awaitable[V]]) -> None:
        try:
            self._value = await look_up()
        except BzzzError as error:
            self._error = error
        except Exception as error:  # a bug in a look-up must not end the task that runs them all
            log.exception("a look-up failed")
            self._error = Internal(f"the look-up failed ({type(error).__name__}); the node's log says where")
        except BaseException:
            self._error = Unavailable("the node is being stopped")
            raise
        finally:
            self._ended.set()


class SingleFlight(Generic[V]):
    """The look-ups under way, by name. Look-ups can begin only while `run` runs."""

    def __init__(self) -> None:
        self._nursery: trio.Nursery | None = None
        self._flights: dict[Hashable, Flight[V]] = {}

    @property
    def is_running(self) -> bool:
        return self._nursery is not None

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None  # before it closes: a caller that comes now makes its own look-up

    def get(self, name: Hashable) -> Flight[V] | None:
        """The look-up that a caller may join now: nothing changed since it began."""
        flight = self._flights.get(name)
        return None if flight is None or flight.load.is_stale else flight

    def begin(self, name: Hashable, load: CacheLoad, look_up: Callable[[], Awaitable[V]]) -> Flight[V]:
        """Begin a look-up that later callers may join."""
        assert self._nursery is not None, "look-ups are shared while `run` does"
        flight = self._flights[name] = Flight[V](load)
        self._nursery.start_soon(self._run, name, flight, look_up)
        return flight

    async def _run(self, name: Hashable, flight: Flight[V], look_up: Callable[[], Awaitable[V]]) -> None:
        try:
            await flight.run(look_up)
        finally:
            if self._flights.get(name) is flight:
                del self._flights[name]
