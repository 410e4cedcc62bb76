"""Runs a machine under trio: the only place where time, events and effects meet.

Whatever happens is told with `tell`, a plain function; the effects are carried out in order before it returns. The
driver's task does nothing but wait for the machine's one deadline and send the `Tick`.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

import trio

from protocols.policy.machine import Machine, Tick

E = TypeVar("E")
F = TypeVar("F")


class Driver(Generic[E, F]):
    """One machine and whoever carries out its effects (`carry_out`: quick, does not wait, does not raise)."""

    def __init__(self, machine: Machine[E, F], carry_out: Callable[[F], None]) -> None:
        self._machine = machine
        self._carry_out = carry_out
        self._woken = trio.Event()

    def tell(self, event: E | Tick) -> None:
        """Something happened, now."""
        before = self._machine.deadline
        for effect in self._machine.handle(event, trio.current_time()):
            self._carry_out(effect)
        after = self._machine.deadline
        if after is not None and (before is None or after < before):  # put off: the task looks again when it wakes
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
                self.tell(Tick())
                await trio.lowlevel.checkpoint()
