"""The `World` protocol: where a scenario is played. Virtual (one seed, one clock) or processes (real nodes).

A world has machines by name, each with a clock, a disk and a process that starts and ends, and the links between them.
`runner.py` makes the calls, `nemesis.py` brings the faults. Times are seconds since all nodes had met.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Protocol

from netsim.history import AnswerRecord, FinalState, Outcome, ReceiptRecord, ResourceSample
from netsim.value_types import Milliseconds, Range, Share
from netsim.workload import Call


class Ability(StrEnum):
    """What a fault may need of a world. The virtual world can do everything; see `ProcessWorld` for the other."""

    KILL = "kill a process"
    RESTART = "stop a process in good order and start it on another backend"
    JOIN = "start a node later than the others"
    PAUSE = "pause a process"
    LOSE_DISK = "replace a disk by an empty one"
    COPY_DISK = "copy a disk, and replace it by a copy"
    PARTITION = "cut nodes from each other both ways"
    CUT_ONE_WAY = "cut one direction of a link"
    SLOW_LINKS = "change latency and loss of links"
    BAD_DISK = "make a disk slow, full or stalled"
    WRONG_CLOCK = "move a wall clock"
    FLIP = "change the flag `backend` of a running node"
    BYZANTINE = "run a byzantine node"


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkQuality:
    """How frames travel over a link. Loss, duplication and reordering are chances for each frame."""

    latency_ms: Milliseconds = 0.5
    jitter_ms: Milliseconds = 0.5
    """A random part of it is added to each latency."""
    loss: Share = 0.0
    duplication: Share = 0.0
    reordering: Share = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskQuality:
    """How a disk works: what a commit takes, whether there is room, whether commits end at all."""

    commit_ms: Annotated[float, Range(0.0, 600_000.0)] = 0.0
    is_full: bool = False
    is_stalled: bool = False


@dataclass(slots=True)
class NodeStatus:
    """How a machine and its process are. `interruptions` counts stops and pauses: a call during which it grew is
    excused."""

    backend: str
    """The backend it was started as."""
    is_running: bool = False
    is_paused: bool = False
    interruptions: int = 0
    disk: int = 0
    """How many disks the machine has lost, or had replaced."""
    flips: list[str] = field(default_factory=list)
    """The backends in force since the run began, in order; `mock>real` while a change is under way."""

    @property
    def in_force(self) -> str:
        return self.flips[-1] if self.flips else self.backend

    def backend_since(self, count: int, before: str) -> str:
        """`before`, and the backends in force since there were `count` flips: `hybrid`, or `hybrid>real`."""
        parts = [part for flip in (before, *self.flips[count:]) for part in flip.split(">")]
        return ">".join(part for part, last in zip(parts, ("", *parts), strict=False) if part != last)

    @property
    def absence(self) -> str:
        """Why the node cannot be called, or ''."""
        return "paused" if self.is_paused else "" if self.is_running else "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class CallResult:
    """The result of one call. `digest` is the version that was or may have been written."""

    outcome: Outcome
    error: str = ""
    digest: str = ""
    receipt: ReceiptRecord | None = None
    answer: AnswerRecord | None = None
    node_seconds: float | None = None
    """See `Operation.node_seconds`."""


NODE_GONE = CallResult(outcome=Outcome.UNKNOWN, error="the node was gone before it answered")


class World(Protocol):
    """The contract. Nodes go by their names; a method that asks for a state which is there already does nothing."""

    def now(self) -> float: ...

    def note(self, node: str, event: str, *facts: object) -> None:
        """Add a line to the world's own trace."""
        ...

    def status(self, node: str) -> NodeStatus: ...

    async def sleep_until(self, time: float) -> None: ...

    # -- processes --------------------------------------------------------------------------------------------

    async def start(self, node: str, *, backend: str | None = None) -> None:
        """Start the process on a machine, on the disk it has; with `backend` as that from now on."""
        ...

    async def stop(self, node: str) -> None:
        """End the process in good order."""
        ...

    async def crash(self, node: str) -> None:
        """Kill the process at once. What its disk has confirmed stays."""
        ...

    async def flip(self, node: str, backend: str) -> bool:
        """Set the flag `backend` of a running node. False: the node did not take it."""
        ...

    def lose_disk(self, node: str) -> None:
        """Put an empty disk into a machine whose process does not run."""
        ...

    def copy_of_disk(self, node: str) -> object:
        """What a machine's disk holds now, as a disk that `replace_disk` takes."""
        ...

    def replace_disk(self, node: str, copy: object) -> object:
        """Put this disk into a machine whose process does not run; return the one that was in it."""
        ...

    async def digests_on_disk(self, node: str) -> tuple[str, ...]:
        """The digests of all versions that a machine's disk holds, in the order of its log."""
        ...

    # -- calls ------------------------------------------------------------------------------------------------

    async def call(self, call: Call, parents: tuple[str, ...]) -> CallResult:
        """Make one call, and wait for its answer. `parents` are for a write whose parents are what its client saw.

        The outcome is unknown when the node is stopped meanwhile.
        """
        ...

    async def final_state(self, node: str) -> FinalState:
        """What a running node holds."""
        ...

    async def unsettled(self) -> str:
        """What has not settled yet, in words; '' when all heads are equal, no hints are left and all breakers are
        closed."""
        ...

    def sample(self) -> ResourceSample: ...

    def holders(self, key: str) -> tuple[str, ...]:
        """The nodes that should hold a key, of all that run now."""
        ...

    # -- faults -----------------------------------------------------------------------------------------------

    def pause(self, node: str) -> None: ...

    def resume(self, node: str) -> None: ...

    def cut(self, source: str, target: str) -> None:
        """Nothing from `source` reaches `target` until `repair`."""
        ...

    def repair(self, source: str, target: str) -> None: ...

    def set_links(self, quality: LinkQuality, others: dict[tuple[str, str], LinkQuality]) -> None:
        """The quality of all links from now on, and of those from a source to a target that differ."""
        ...

    def set_disk(self, node: str, quality: DiskQuality) -> None: ...

    def move_clock(self, node: str, by_seconds: float) -> None: ...

    def reset_clock(self, node: str) -> None:
        """Set the machine's wall clock right again."""
        ...

    async def start_byzantine(self, node: str, *, attacks: bool = True) -> None:
        """From now on the machine runs a byzantine program in the place of a node (`virtual/byzantine.py`). Without
        `attacks` it answers, and sends nothing by itself."""
        ...

    async def stop_byzantine(self, node: str) -> None: ...
