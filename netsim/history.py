"""A history: what happened in one run, for the checkers. Operations, events, and what nodes held at the end.

One format for every world; the words are Jepsen's. An operation has a call, a return and an outcome: `ok`, `failed` (it
did not happen) or `unknown` (it may or may not have happened, now or later). An operation whose node was itself stopped
or paused in the meantime is `excused`: it counts for safety, not for latency or errors.

Digests are cut to 16 hex digits, times are seconds on the world's clock, keys and nodes go by their names.
`history_file.py` writes a history as JSON lines.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

DIGEST_DIGITS = 16


def short_digest(digest: bytes) -> str:
    """A digest as a history has it."""
    return digest.hex()[:DIGEST_DIGITS]


class Outcome(StrEnum):
    OK = "ok"
    FAILED = "failed"
    UNKNOWN = "unknown"


class ShownVersion(NamedTuple):
    """One version, as a client or a node showed it."""

    digest: str
    version: int
    author: str
    """A node's name, or the peer id of an author that is no node."""
    op: int = 0
    """The operation that wrote it; 0: no operation of this run, or not known."""
    deleted: bool = False
    parents: tuple[str, ...] = ()
    is_held: bool = True
    """False: only the version's notice was there, and its content elsewhere."""

    @property
    def order(self) -> tuple[int, str, str]:
        """Its place in an order that all replicas agree on, as far as this history shows."""
        return self.version, self.author, self.digest


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptRecord:
    """The receipt that answered a write, and what was true of the write at that moment."""

    digest: str
    version: int
    parents: tuple[str, ...]
    backend: str
    durability: str
    acknowledged: int
    wanted: int
    quorum: int
    log_id: str
    sequence: int
    held_by: tuple[str, ...] | None = None
    """The nodes whose disks held the version when the call returned; None where the world cannot read the disks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRecord:
    """The answer to a read: the heads, the latest first, and their provenance."""

    heads: tuple[ShownVersion, ...]
    backend: str
    source: str
    age_ms: float | None
    replicas: int
    siblings: int
    is_degraded: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One call of a client to a node. `disk` counts the disks that the node has had."""

    id: int
    client: str
    node: str
    backend: str
    """The backend when the call began; `hybrid>real` when the flag was changed while the call was under way."""
    disk: int
    kind: str
    """write, delete or read"""
    key: str
    how: str
    """Of a write: what it named as parents; of a read: the consistency asked for."""
    called: float
    returned: float
    outcome: Outcome
    error: str = ""
    """The error's name, then its message."""
    excused: str = ""
    """Why this call counts for safety alone, or ''."""
    is_final: bool = False
    """True: made after everything had healed."""
    receipt: ReceiptRecord | None = None
    """Of a write whose outcome is ok. Of an unknown one `digest` may have the digest."""
    answer: AnswerRecord | None = None
    """Of a read whose outcome is ok."""
    digest: str = ""
    """Of a write: the version, when it is known."""
    node_seconds: float | None = None
    """Seconds that the call took by the node's own clock; None where that is the world's clock, or not known."""

    @property
    def backends(self) -> tuple[str, ...]:
        """The backend; or, in order, those that were in force during the call."""
        return tuple(self.backend.split(">"))

    @property
    def seconds(self) -> float:
        """How long the node took."""
        return self.returned - self.called if self.node_seconds is None else self.node_seconds

    @property
    def is_write(self) -> bool:
        return self.kind != "read"

    @property
    def shown(self) -> list[str]:
        """The digests that the node showed the client: of the version written, or of the heads read."""
        if self.receipt is not None:
            return [self.receipt.digest]
        return [head.digest for head in self.answer.heads] if self.answer is not None else []


@dataclass(frozen=True, slots=True, kw_only=True)
class NemesisEvent:
    """Something that the nemesis did to the world. `text` is a sentence without the time."""

    at: float
    kind: str
    nodes: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """A process started on a disk that had been used before: the versions that it found there."""

    at: float
    node: str
    disk: int
    digests: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalState:
    """What one node held when the run was over."""

    at: float
    node: str
    backend: str
    heads: dict[str, tuple[str, ...]]
    """By key, the latest first."""
    versions: dict[str, tuple[ShownVersion, ...]]
    reissued: dict[str, str]
    """The digest of each reissued version, and that of the version in its place."""
    hints: int
    quarantined: int
    """Hints in quarantine."""
    breaker: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceSample:
    """How much there was at one moment of what must be bounded."""

    at: float
    nodes: int
    tasks: int
    frames: int
    """The most frames under way in one lane of one connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunParameters:
    """What a checker must know of the scenario and the world: nodes, deadlines, bounds."""

    scenario: str
    seed: int
    nodes: tuple[str, ...]
    replication: int
    deadline_seconds: dict[str, float]
    """By backend."""
    freshness_seconds: float
    faults_seconds: float
    settle_seconds: float
    tasks_per_node: int
    frames_per_link: int
    has_fallback: bool = True
    store_deadline_seconds: float = 5.0
    """How long a call may wait for the disk of its node, beside the deadline of its backend."""
    slack_seconds: float = 0.005
    """Allowed beyond a deadline. On a virtual clock only waiting takes time, so this is for rounding."""
    disk_seconds: float = 0.0
    """Allowed to a write besides, where the disks are real: a sync takes 200 ms now and then."""
    is_known_to_all: bool = True
    """False: nodes deny each other for a while. A denied peer is no holder meanwhile, so the age of an answer holds for
    the other nodes alone."""
    spreads_all: bool = True
    """False: a version that was not acknowledged may stay at a few nodes, which is how the real backend leaves a write
    that its quorum did not confirm. Such versions are left out when nodes are compared."""
    errors_max: float = 0.0
    """The share of the calls to working hybrid nodes that may fail."""
    byzantine: tuple[str, ...] = ()
    late: tuple[str, ...] = ()
    """The nodes that join during the run."""
    holders: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By key: the nodes that should hold it, of all that run when everything has healed."""


@dataclass(slots=True, kw_only=True)
class History:
    """A whole run. Lists are in the order of time, operations in the order of their return."""

    parameters: RunParameters
    operations: list[Operation] = field(default_factory=list)
    events: list[NemesisEvent] = field(default_factory=list)
    recoveries: list[Recovery] = field(default_factory=list)
    samples: list[ResourceSample] = field(default_factory=list)
    states: list[FinalState] = field(default_factory=list)
    """Of the nodes that ran at the end; empty when the run did not get that far."""
    healed_at: float | None = None
    settled_at: float | None = None
    unsettled: str = ""
    """What had not settled when the bound was reached, in words."""

    @property
    def writes(self) -> list[Operation]:
        return [op for op in self.operations if op.is_write]

    @property
    def reads(self) -> list[Operation]:
        return [op for op in self.operations if op.answer is not None]

    def by_id(self) -> dict[int, Operation]:
        return {op.id: op for op in self.operations}

    def lost_disks(self) -> set[tuple[str, int]]:
        """The disks that are gone, by node and number."""
        return {
            (event.nodes[0], int(event.text.rsplit(" ", 1)[1])) for event in self.events if event.kind == "disk-lost"
        }
