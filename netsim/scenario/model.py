"""A scenario: what is played in a world, as data. Nodes, workload, faults over time, limits.

`toml.py` reads it from a file, and `plan.py` makes it concrete for one seed. Nodes are called n1, n2, ...; times are
seconds since all nodes had met, sizes are bytes. A run has two phases: first the faults, while safety is checked; then
the healing, after which everything must settle within `ScenarioLimits.settle_seconds`.
"""

from dataclasses import dataclass, field
from typing import Annotated

from netsim.faults.base import Fault
from netsim.faults.kinds import Byzantine, Join
from netsim.value_types import Backend, Interval, PhaseSeconds, Range
from netsim.workload import Workload
from netsim.world import LinkQuality


@dataclass(frozen=True, slots=True, kw_only=True)
class Chaos:
    """Faults that the seed draws: one of `kinds` about every `every_seconds`, each at most `longest_seconds` long."""

    kinds: tuple[type[Fault], ...]
    every_seconds: Interval = 2.0
    longest_seconds: Interval = 6.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioLimits:
    """When the phases end, and what must be bounded."""

    faults_seconds: PhaseSeconds = 20.0
    settle_seconds: PhaseSeconds = 60.0
    """After healing: how long until all heads are equal, no hints are left and every breaker is closed."""
    tasks_per_node: Annotated[int, Range(1, 100_000)] = 200
    """Living tasks, on the average over the nodes."""
    frames_per_link: Annotated[int, Range(1, 100_000)] = 1024
    """Frames under way between two nodes in one lane."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    name: str
    about: str
    nodes: tuple[str, ...]
    backend: Backend = "hybrid"
    backends: dict[str, str] = field(default_factory=dict)
    """The backends of nodes that differ."""
    replication: Annotated[int, Range(1, 1000)] = 20
    settings: dict[str, object] = field(default_factory=dict)
    """Others of a node's settings, by their names in `node/config/settings.py`."""
    link: LinkQuality = field(default_factory=LinkQuality)
    commit_ms: Annotated[float, Range(0.0, 10_000.0)] = 0.3
    """What a good disk takes to commit."""
    workload: Workload = field(default_factory=Workload)
    limits: ScenarioLimits = field(default_factory=ScenarioLimits)
    faults: tuple[Fault, ...] = ()
    chaos: Chaos | None = None
    expected_to_fail: dict[str, str] = field(default_factory=dict)
    """By the name of a check: why it cannot hold yet."""

    def backend_of(self, node: str) -> str:
        """The backend that a node is started on at first."""
        return self.backends.get(node, self.backend)

    @property
    def late(self) -> tuple[str, ...]:
        """The nodes that join during the run."""
        return tuple(node for fault in self.faults if isinstance(fault, Join) for node in fault.nodes)

    @property
    def byzantine(self) -> tuple[str, ...]:
        return tuple(node for fault in self.faults if isinstance(fault, Byzantine) for node in fault.nodes)
