"""A scenario: what is played in a world, as data. Nodes, workload, faults over time, limits.

It is read from TOML by `toml.py`, and made concrete for one seed by `plan.py`. Nodes are called n1, n2, ...;
times are seconds since everybody has met, sizes bytes. A run has two phases: the faults, while safety is checked, and
then the healing, after which everything must be well within `ScenarioLimits.settle_seconds`.
"""

from dataclasses import dataclass, field
from enum import StrEnum

BACKENDS = ("mock", "real", "hybrid")


class FaultKind(StrEnum):
    """What can go wrong. In TOML each is a word, and takes the keys of `scenario_file.FAULT_KEYS`."""

    CRASH = "crash"
    """The process is killed, and started again at `until` (or when all heals), with its disk or without."""
    RESTART = "restart"
    """It is stopped in good order, and started again at `until`; with `backend`, as another one."""
    PAUSE = "pause"
    """Nothing reaches the node, nothing leaves it, nobody calls it (see `netsim/faults.py` for what that models)."""
    PARTITION = "partition"
    """`groups` cannot reach each other; with `every_seconds` it comes and goes."""
    CUT = "cut"
    """Nothing from `sources` reaches `targets`; with `both_ways`, nor back."""
    LINK = "link"
    """Links are slow, lose, double or reorder frames."""
    DISK = "disk"
    """Commits take `commit_ms`, or fail for want of room (`is_full`), or do not end (`is_stalled`)."""
    CLOCK = "clock"
    """The wall clock is `off_seconds` off."""
    JUMP = "jump"
    """The wall clock jumps by `off_seconds` and stays there until all heals."""
    JOIN = "join"
    """The node does not run from the start, but comes now."""
    FLIP = "flip"
    """The flag `backend` is set to `backend` while the node runs; when all heals it is what it was at first."""
    LIE = "lie"
    """The node is none of ours: it equivocates, replays, forges and acknowledges what it throws away."""


class Parents(StrEnum):
    """What a write names as its parents."""

    NODE = "node"
    """Leaves it to the node: its current heads."""
    SEEN = "seen"
    """What this client saw last, which may be stale: that makes a sibling."""
    NONE = "none"
    """Nothing: a blind write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkQuality:
    """How frames travel; see `wires.Link`. Chances are for each frame, 0 to 1."""

    latency_ms: float = 0.5
    jitter_ms: float = 0.5
    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault, at one time. What a kind does not take has its default."""

    kind: FaultKind
    at: float
    until: float | None = None
    """None: until all heals (or for good, for what ends by itself)."""
    nodes: tuple[str, ...] = ()
    groups: tuple[tuple[str, ...], ...] = ()
    sources: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    both_ways: bool = False
    every_seconds: float | None = None
    """One coming and going of what flaps; or the time between two nodes, one after the other."""
    loses_disk: bool = False
    is_forever: bool = False
    """Not even healing brings the node back."""
    backend: str | None = None
    link: LinkQuality = field(default_factory=LinkQuality)
    commit_ms: float = 0.0
    is_full: bool = False
    is_stalled: bool = False
    off_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Chaos:
    """Faults drawn by the seed: one of `kinds` about every `every_seconds`, each at most `longest_seconds` long."""

    kinds: tuple[FaultKind, ...]
    every_seconds: float = 2.0
    longest_seconds: float = 6.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What clients do. Shares are of the calls, or of the writes where it says so; what they leave is the rest."""

    clients: int = 5
    """Each calls one node, and has at most one call under way. Client 1 calls the first of `nodes`, and so on."""
    nodes: tuple[str, ...] = ()
    """Which nodes are called; () means all."""
    readers: int = 0
    """How many of the clients, the last ones, only read."""
    calls_per_second: float = 6.0
    """Of all clients together."""
    writes: float = 0.5
    deletes: float = 0.05
    """Of the writes."""
    seen: float = 0.3
    """Of the writes: those that name what the client saw last as their parents."""
    blind: float = 0.1
    """Of the writes: those that name no parents at all."""
    local: float = 0.1
    """Of the reads: those that ask for this machine's answer."""
    swarm: float = 0.2
    """Of the reads: those that ask for the swarm's."""
    keys: int = 12
    skew: float = 1.0
    """Key number i is called with a weight of i to the power of minus this; 0: all alike."""
    size_bytes: tuple[int, int] = (10, 300)
    until: float | None = None
    """When the last call begins; None: at the end of the faults."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioLimits:
    """When things end, and how much is too much."""

    faults_seconds: float = 20.0
    settle_seconds: float = 60.0
    """After healing: how long until all heads are equal, nothing is owed and every breaker is closed."""
    tasks_per_node: int = 200
    """Living tasks, on the average over the nodes."""
    frames_per_link: int = 1024
    """Under way between two nodes in one lane."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    name: str
    about: str
    nodes: tuple[str, ...]
    backend: str = "hybrid"
    backends: dict[str, str] = field(default_factory=dict)
    """Those of nodes that differ."""
    replication: int = 20
    settings: dict[str, object] = field(default_factory=dict)
    """Others of a node's settings, by their names in `node/config/settings.py`."""
    link: LinkQuality = field(default_factory=LinkQuality)
    commit_ms: float = 0.3
    """What a good disk takes to commit."""
    workload: Workload = field(default_factory=Workload)
    limits: ScenarioLimits = field(default_factory=ScenarioLimits)
    faults: tuple[Fault, ...] = ()
    chaos: Chaos | None = None
    expected_to_fail: dict[str, str] = field(default_factory=dict)
    """By the name of a check: why it cannot hold yet."""

    def backend_of(self, node: str) -> str:
        """What a node is at first."""
        return self.backends.get(node, self.backend)

    @property
    def late(self) -> tuple[str, ...]:
        """Those that join later."""
        return tuple(node for fault in self.faults if fault.kind is FaultKind.JOIN for node in fault.nodes)

    @property
    def liars(self) -> tuple[str, ...]:
        return tuple(node for fault in self.faults if fault.kind is FaultKind.LIE for node in fault.nodes)
