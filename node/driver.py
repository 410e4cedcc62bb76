"""Runs a machine under trio: the only place where time, events and effects meet.

`handle` gives an event to the machine; it is a plain function, and carries out the effects in order before it returns.
The driver's task only waits for the machine's one deadline and sends the `Tick`.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

import trio

from protocols.policy.machine import Machine, Tick

E = TypeVar("E")
F = TypeVar("F")


class Driver(Generic[E, F]):
    """One machine. `carry_out` carries out its effects: it is quick, does not wait and does not raise."""

    def __init__(self, machine: Machine[E, F], carry_out: Callable[[F], None]) -> None:
        self._machine = machine
        self._carry_out = carry_out
        self._woken = trio.Event()

    def handle(self, event: E | Tick) -> None:
        """Give the machine an event that happens now, and carry out the effects."""
        before = self._machine.deadline
        for effect in self._machine.handle(event, trio.current_time()):
            self._carry_out(effect)
        after = self._machine.deadline
        if after is not None and (before is None or after < before):  # for a later one the task looks when it wakes
            self._woken.set()

    async def run(self) -> None:
        """Send ticks until cancelled."""
        while True:
            deadline = self._machine.deadline
            self._woken = trio.Event()
            with trio.move_on_at(float("inf") if deadline is None else deadline):
                await self._woken.wait()
            due = self._machine.deadline
            if due is not None and trio.current_time() >= due:
                self.handle(Tick())
                await trio.lowlevel.checkpoint()
