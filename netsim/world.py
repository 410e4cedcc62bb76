"""A world: where a scenario is played. Virtual (one seed, one clock), or live (real processes), by this Protocol.

A world keeps machines by name, each with a clock, a disk and a process that comes and goes, and the links between
them. Everything here is told by `runner.py` and `faults.py`. Times are seconds since everybody had met.
"""

from dataclasses import dataclass, field
from typing import Protocol

from netsim.history import NodeState, Outcome, ReceiptRecord, Sample, Sight
from netsim.scenario.model import LinkQuality
from netsim.scenario.plan import Call


@dataclass(slots=True)
class Condition:
    """How a machine is. `interruptions` counts stops and pauses: a call during which it grew is excused."""

    backend: str
    """What it was started as."""
    is_running: bool = False
    is_paused: bool = False
    interruptions: int = 0
    disk: int = 0
    turns: list[str] = field(default_factory=list)
    """The backends in force since the run began, one after another; `mock>real` while one is being turned."""

    @property
    def in_force(self) -> str:
        return self.turns[-1] if self.turns else self.backend

    def backend_since(self, turn: int, before: str) -> str:
        """`before`, and what it was turned to since there were `turn` turns: `hybrid`, or `hybrid>real`."""
        parts = [part for one in (before, *self.turns[turn:]) for part in one.split(">")]
        return ">".join(part for part, last in zip(parts, ("", *parts), strict=False) if part != last)

    @property
    def absence(self) -> str:
        """Why it cannot be called, or ''."""
        return "paused" if self.is_paused else "" if self.is_running else "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class CallResult:
    """What came of one call. `digest` is the version that was or may have been written."""

    outcome: Outcome
    error: str = ""
    digest: str = ""
    receipt: ReceiptRecord | None = None
    sight: Sight | None = None
    took: float | None = None
    """See `Operation.took`."""


class World(Protocol):
    """The contract. Nodes go by their names; asking for what is so already does nothing."""

    def now(self) -> float: ...

    def note(self, node: str, event: str, *facts: object) -> None:
        """Put something into the world's own trace."""
        ...

    def condition(self, node: str) -> Condition: ...

    async def sleep_until(self, time: float) -> None: ...

    # -- processes --------------------------------------------------------------------------------------------

    async def start(self, node: str, *, backend: str | None = None) -> None:
        """Start the process on a machine, on the disk it has; with `backend` as that from now on."""
        ...

    async def stop(self, node: str) -> None:
        """End it in good order."""
        ...

    async def crash(self, node: str) -> None:
        """Kill it, at once. What its disk has confirmed stays."""
        ...

    async def flip(self, node: str, backend: str) -> bool:
        """Set the flag `backend` of a node while it runs. False: nobody was there to take it."""
        ...

    def lose_disk(self, node: str) -> None:
        """Put an empty disk into a machine that does not run."""
        ...

    async def on_disk(self, node: str) -> tuple[str, ...]:
        """The digests of all versions that a machine's disk holds, in the order of its log."""
        ...

    # -- calls ------------------------------------------------------------------------------------------------

    async def call(self, call: Call, parents: tuple[str, ...]) -> CallResult:
        """Make one call, and wait for its answer. `parents` are for a write that names what its client saw.

        Unknown when the node is stopped meanwhile.
        """
        ...

    async def look(self, node: str) -> NodeState:
        """What a running node holds and how it is."""
        ...

    async def unsettled(self) -> str:
        """What is not well yet, in words; '' when all heads are equal, nothing is owed and all breakers are closed."""
        ...

    def sample(self) -> Sample: ...

    def holders(self, key: str) -> tuple[str, ...]:
        """The nodes that should hold a key, of all that run now."""
        ...

    # -- faults -----------------------------------------------------------------------------------------------

    def pause(self, node: str) -> None: ...

    def resume(self, node: str) -> None: ...

    def cut(self, source: str, target: str) -> None:
        """Nothing from `source` reaches `target` until `mend`."""
        ...

    def mend(self, source: str, target: str) -> None: ...

    def set_links(self, quality: LinkQuality, others: dict[tuple[str, str], LinkQuality]) -> None:
        """How all links are from now on, and those from a source to a target that differ."""
        ...

    def set_disk(self, node: str, *, commit_ms: float, is_full: bool, is_stalled: bool) -> None: ...

    def move_clock(self, node: str, by_seconds: float) -> None: ...

    def mend_clock(self, node: str) -> None:
        """Its wall clock is right again."""
        ...

    async def begin_lying(self, node: str) -> None:
        """A machine is run by somebody else's program from now on (`netsim/virtual/byzantine.py`)."""
        ...

    async def end_lying(self, node: str) -> None: ...
