"""Ticks of a machine in a test without an event loop."""

from math import inf
from typing import Any, TypeVar

from protocols.policy.machine import Machine, Tick

Effect = TypeVar("Effect")


def due(machine: Machine[Any, Any]) -> float:
    """The deadline of a machine; infinity without one."""
    return inf if machine.deadline is None else machine.deadline


def run_until(machine: Machine[Any, Effect], end: float) -> list[tuple[float, Effect]]:
    """Send every tick that is due until `end`. Returns the effects, each with its time."""
    effects: list[tuple[float, Effect]] = []
    while (now := due(machine)) <= end:
        effects += [(now, effect) for effect in machine.handle(Tick(), now)]
        assert due(machine) > now, "it spins"
    return effects
