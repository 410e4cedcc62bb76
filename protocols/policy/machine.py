"""Machine: the interface of every pure state machine, which takes events with their time and returns effects.

A machine has no clock, socket or random source of its own. The same object runs under trio in a node
(`node/driver.py`), under a virtual clock in the simulator, and in a test without an event loop. Instead of many timers
it has one `deadline`; its driver sends a `Tick` at that time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

Event_contra = TypeVar("Event_contra", contravariant=True)
Effect_co = TypeVar("Effect_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Tick:
    """The deadline of the machine has come. An early or a second tick must be harmless."""


class Machine(Protocol[Event_contra, Effect_co]):
    """A pure state machine. Times are seconds on one monotonic clock, the same for `now` and `deadline`."""

    @property
    def deadline(self) -> float | None:
        """The time of the next `Tick`, or None while the machine waits for events alone."""
        ...

    def handle(self, event: Event_contra | Tick, now: float) -> Sequence[Effect_co]:
        """Take one event and return the effects to carry out, in order. Never waits; no event makes it raise."""
        ...
