"""The events of a large swarm in one heap, on virtual time; and machines that run on it."""

from collections.abc import Callable
from heapq import heappop, heappush
from math import inf
from typing import Generic, TypeVar

from protocols.policy.machine import Machine, Tick

E = TypeVar("E")
F = TypeVar("F")


class EventHeap:
    """Events happen in the order of (time, sequence). Whole nodes have `netsim/virtual/event_queue.py` instead, which
    works with trio; here an event is a call of a function and nothing else."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._sequence = 0

    def at(self, time: float, callback: Callable[..., None], *args: object) -> None:
        self._sequence += 1
        heappush(self._heap, (time, self._sequence, callback, args))

    def run_until(self, end: float) -> None:
        """Do all events until this time, in seconds."""
        heap = self._heap
        while heap and heap[0][0] <= end:
            time, _, callback, args = heappop(heap)
            self.now = max(self.now, time)
            callback(*args)
        self.now = end


class HeapDriver(Generic[E, F]):
    """Runs one machine: what `node/driver.py` is in a node. While `is_on` says no, a deadline passes without a tick."""

    __slots__ = ("_carry_out", "_heap", "_is_on", "_machine", "_tick_at")

    def __init__(
        self,
        machine: Machine[E, F],
        carry_out: Callable[[F], None],
        heap: EventHeap,
        *,
        is_on: Callable[[], bool] = lambda: True,
    ) -> None:
        self._machine = machine
        self._carry_out = carry_out
        self._heap = heap
        self._is_on = is_on
        self._tick_at = inf
        self._expect()

    def handle(self, event: E | Tick) -> None:
        for effect in self._machine.handle(event, self._heap.now):
            self._carry_out(effect)
        self._expect()

    def _expect(self) -> None:
        deadline = self._machine.deadline
        if deadline is not None and deadline < self._tick_at:
            self._tick_at = deadline
            self._heap.at(deadline, self._tick)

    def _tick(self) -> None:
        if self._tick_at <= self._heap.now:
            self._tick_at = inf
            if self._is_on():
                self.handle(Tick())
