"""What happened in a run, in the words of a checker: operations, events, and what nodes were found to hold.

One format for every world. An operation has a call, a return and an outcome: `ok`, `failed` (it did not happen), or
`unknown` (it may or may not have happened, now or later). An operation whose node was itself stopped or frozen in
the meantime is `excused`: it counts for safety, not for latency or errors. The words are Jepsen's.

Written as JSON lines, each an object whose `type` names one of the classes below; versions are arrays in the order of
`Ref`. Digests are cut to 16 hex digits, times are seconds on the world's clock, keys and nodes go by their names.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

DIGEST_DIGITS = 16


class Outcome(StrEnum):
    OK = "ok"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Ref(NamedTuple):
    """One version, as somebody saw it."""

    digest: str
    version: int
    author: str
    """A node's name, or the peer id of an author that is no node."""
    op: int = 0
    """The operation that wrote it; 0: none of ours, or not known."""
    deleted: bool = False
    parents: tuple[str, ...] = ()
    is_held: bool = True
    """False: only its notice was there, and the content elsewhere."""

    @property
    def order(self) -> tuple[int, str, str]:
        """Its place in an order that all replicas agree on, as far as this history tells."""
        return self.version, self.author, self.digest


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptRecord:
    """What a write was answered with, and what was true of it at that moment."""

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
    """The nodes whose disks held it when the call returned; None where the world cannot look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What a read was answered with: the heads, the latest first, and where they came from."""

    heads: tuple[Ref, ...]
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
    """As the call found it; `hybrid>real` when the flag was turned while the call was under way."""
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
    """The error's name, then what it said."""
    excused: str = ""
    """Why this call counts for safety alone, or ''."""
    is_final: bool = False
    """True: made when everything had healed."""
    receipt: ReceiptRecord | None = None
    """Of a write that is ok; of an unknown one the digest may be in `digest`."""
    sight: Sight | None = None
    digest: str = ""
    """Of a write: the version, when it is known."""
    took: float | None = None
    """Seconds that the node itself says it took; None where its clock is the world's, or it said nothing."""

    @property
    def backends(self) -> tuple[str, ...]:
        """The backend, or those that it was turned through, the first one first."""
        return tuple(self.backend.split(">"))

    @property
    def seconds(self) -> float:
        """How long the node took."""
        return self.returned - self.called if self.took is None else self.took

    @property
    def is_write(self) -> bool:
        return self.kind != "read"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something was done to the world: `text` is a sentence without its subject's time."""

    at: float
    kind: str
    nodes: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A process came up on a disk that had been used before, and this was on it."""

    at: float
    node: str
    disk: int
    digests: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeState:
    """What one node held when the run was over."""

    at: float
    node: str
    backend: str
    heads: dict[str, tuple[str, ...]]
    """By key, the latest first."""
    versions: dict[str, tuple[Ref, ...]]
    reissued: dict[str, str]
    owed: int
    refused: int
    breaker: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """How much of what must be bounded there was."""

    at: float
    nodes: int
    tasks: int
    frames: int
    """The most under way in one lane of one connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a checker must know of the scenario."""

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
    slack_seconds: float = 0.005
    """Beyond a deadline. On a virtual clock only waiting costs time, so this is for rounding."""
    is_known_to_all: bool = True
    """False: nodes deny each other for a while. Whom a node denies is none of its holders meanwhile, so what it says of
    the age of an answer is said of the others alone."""
    spreads_all: bool = True
    """False: a version that nobody acknowledged may be at some nodes alone, which is how real leaves a write that its
    quorum did not confirm; it counts for nothing when nodes are compared."""
    errors_max: float = 0.0
    """The share of the calls to working hybrid nodes that may fail."""
    liars: tuple[str, ...] = ()
    late: tuple[str, ...] = ()
    holders: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By key: the nodes that should hold it, of all that are there when everything has healed."""


@dataclass(slots=True, kw_only=True)
class History:
    """A whole run. Lists are in the order of time; operations in that of their return."""

    setting: Setting
    operations: list[Operation] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    opened: list[Opened] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    states: list[NodeState] = field(default_factory=list)
    """Of those nodes that ran at the end; empty when the run did not get that far."""
    healed_at: float | None = None
    settled_at: float | None = None
    unsettled: str = ""
    """What was not well yet when the bound was reached, in words."""

    @property
    def writes(self) -> list[Operation]:
        return [op for op in self.operations if op.is_write]

    @property
    def reads(self) -> list[Operation]:
        return [op for op in self.operations if op.sight is not None]

    def by_id(self) -> dict[int, Operation]:
        return {op.id: op for op in self.operations}

    def lost_disks(self) -> set[tuple[str, int]]:
        """The disks that are gone, by node and number."""
        return {
            (event.nodes[0], int(event.text.rsplit(" ", 1)[1])) for event in self.events if event.kind == "disk-lost"
        }

    # -- JSON lines -------------------------------------------------------------------------------------------

    def lines(self) -> Iterator[str]:
        """The whole history, a JSON object a line; byte-identical for equal histories."""
        end = {"healed_at": self.healed_at, "settled_at": self.settled_at, "unsettled": self.unsettled}
        yield _line("Setting", asdict(self.setting))
        kinds: dict[str, list[Any]] = {
            "Operation": self.operations,
            "Event": self.events,
            "Opened": self.opened,
            "Sample": self.samples,
            "State": self.states,
        }
        for kind, items in kinds.items():
            for item in items:
                yield _line(kind, asdict(item))
        yield _line("End", end)

    @classmethod
    def from_lines(cls, lines: Iterable[str]) -> "History":
        """The inverse of `lines`. Raises `ValueError` for what is no history."""
        tables = [json.loads(line) for line in lines if line.strip()]
        if not tables or tables[0].get("type") != "Setting":
            raise ValueError("a history begins with its Setting")
        history = cls(setting=_setting(_without_type(tables[0])))
        takers = {
            "Operation": lambda t: history.operations.append(_operation(t)),
            "Event": lambda t: history.events.append(Event(**{**t, "nodes": tuple(t["nodes"])})),
            "Opened": lambda t: history.opened.append(Opened(**{**t, "digests": tuple(t["digests"])})),
            "Sample": lambda t: history.samples.append(Sample(**t)),
            "State": lambda t: history.states.append(_state(t)),
        }
        for table in tables[1:]:
            fields = _without_type(table)
            if table.get("type") == "End":
                history.healed_at, history.settled_at = fields["healed_at"], fields["settled_at"]
                history.unsettled = fields["unsettled"]
            elif (take := takers.get(str(table.get("type")))) is not None:
                take(fields)
            else:
                raise ValueError(f"a history has no {table.get('type')!r}")
        return history


def _line(kind: str, fields: dict[str, Any]) -> str:
    return json.dumps({"type": kind, **fields}, separators=(",", ":"), default=tuple)


def _without_type(table: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key != "type"}


def _ref(row: list[Any]) -> Ref:
    return Ref(row[0], row[1], row[2], row[3], row[4], tuple(row[5]), row[6])


def _tuples(table: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    return {key: tuple(value) for key, value in table.items()}


def _setting(t: dict[str, Any]) -> Setting:
    rows = {name: tuple(t[name]) for name in ("nodes", "liars", "late")}
    return Setting(**{**t, **rows, "holders": _tuples(t["holders"])})


def _operation(t: dict[str, Any]) -> Operation:
    receipt, sight = t.get("receipt"), t.get("sight")
    if receipt is not None:
        held_by = receipt["held_by"]
        held = None if held_by is None else tuple(held_by)
        receipt = ReceiptRecord(**{**receipt, "parents": tuple(receipt["parents"]), "held_by": held})
    if sight is not None:
        sight = Sight(**{**sight, "heads": tuple(map(_ref, sight["heads"]))})
    return Operation(**{**t, "outcome": Outcome(t["outcome"]), "receipt": receipt, "sight": sight})


def _state(t: dict[str, Any]) -> NodeState:
    versions = {key: tuple(map(_ref, rows)) for key, rows in t["versions"].items()}
    return NodeState(**{**t, "heads": _tuples(t["heads"]), "versions": versions})
