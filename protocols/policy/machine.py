"""The shape of every protocol core: told what happened and when, it answers what to do.

A machine owns no time, no socket and no chance. The same object runs under trio in a node (`node/driver.py`),
under a virtual clock in the simulator, and in a test with no loop at all. Instead of many timers it has one
`deadline`; whoever drives it sends a `Tick` when that moment has come.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

Event_contra = TypeVar("Event_contra", contravariant=True)
Effect_co = TypeVar("Effect_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Tick:
    """The machine's own deadline has come (an early or a doubled tick must be harmless)."""


class Machine(Protocol[Event_contra, Effect_co]):
    """A pure state machine. Times are seconds on one monotonic clock, the same for `now` and `deadline`."""

    @property
    def deadline(self) -> float | None:
        """When the machine wants a `Tick`, or None while it waits for events alone."""
        ...

    def handle(self, event: Event_contra | Tick, now: float) -> Sequence[Effect_co]:
        """Take one event and answer the effects to carry out, in order. Never waits, never raises for the world."""
        ...
