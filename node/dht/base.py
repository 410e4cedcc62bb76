"""The contract of a DHT: one Protocol, three backends (mock, real, hybrid) over one store.

Callers are the author, the resolver and the API. Envelopes are signed and verified before `put`; the author
(`node/services/writes/author.py`) holds the key's lock while it makes one. Each call ends within its deadline, which
runs from entry and includes the commit. Raises `Unavailable`, `Indeterminate`, `Rejected`, `StorageFull`. That there is
nothing is an answer, never an error.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import NamedTuple, Protocol

from node.store.hints import Standing
from node.store.versions import Version
from protocols.envelope import Envelope, Notice


class Backend(StrEnum):
    MOCK = "mock"
    REAL = "real"
    HYBRID = "hybrid"


class Consistency(StrEnum):
    """`auto`: as the backend decides. `local`: this store only. `swarm`: the holders only."""

    AUTO = "auto"
    LOCAL = "local"
    SWARM = "swarm"


class Durability(StrEnum):
    REPLICATED = "replicated"
    """Every wanted holder has it."""
    PENDING = "pending"
    """It is durable on this machine; fewer peers than the write quorum have it so far."""
    AT_RISK = "at risk"
    """The write quorum has it, but not every wanted holder so far."""
    LOCAL = "local"
    """The mock backend: on this machine, and no peer was asked."""


class Receipt(NamedTuple):
    """The answer to a write: where the version is, and how durable."""

    backend: Backend
    """`real` when the write quorum acknowledged, else `mock`."""
    acknowledged: int
    wanted: int
    quorum: int
    elapsed_ms: float
    log_id: str
    sequence: int
    address: str
    version: int
    digest: bytes
    parents: tuple[bytes, ...]
    content_digest: bytes | None
    """None: it is a tombstone."""
    reissued_as: bytes | None = None
    """The version that replaced this one after this node's clock was set right."""
    siblings: int = 0
    """How many other heads this node knows beside this version; 0 as well when the version is no head any more."""
    is_conditional: bool = False
    """Whether it was written under a condition. That held among the heads that this node knew, not in the swarm."""
    may_be_sibling: str = ""
    """Why other holders may have later versions than its parents, which the write was made on for want of their
    answers; '': no reason is known."""

    @classmethod
    def of(
        cls,
        written: Envelope | Notice,
        standing: Standing,
        *,
        log_id: str,
        quorum: int,
        elapsed_seconds: float = 0.0,
        requested: bytes | None = None,
    ) -> "Receipt":
        """The receipt of a write with this standing. `quorum` is that of the backend, 0 where no peer is asked.

        `requested` is the digest that the caller named; `written` is the reissued version, if there is one.
        """
        acknowledged = len(standing.acknowledged)
        return cls(  # by position, in the order of the fields: names would cost a tenth of a put into memory
            Backend.REAL if quorum and acknowledged >= quorum else Backend.MOCK,
            acknowledged,
            standing.wanted,
            quorum,
            elapsed_seconds * 1000.0,
            log_id,
            standing.sequence,
            written.address,
            written.version,
            written.digest,
            written.parents,
            None if written.deleted else written.content_digest,
            standing.digest if requested is not None and requested != standing.digest else None,
        )

    @property
    def is_replicated(self) -> bool:
        return self.quorum > 0 and self.acknowledged >= self.quorum

    @property
    def durability(self) -> Durability:
        if self.quorum == 0:
            return Durability.LOCAL
        if not self.is_replicated:
            return Durability.PENDING
        return Durability.AT_RISK if self.acknowledged < self.wanted else Durability.REPLICATED


class Provenance(NamedTuple):
    """Where the answer to a read came from."""

    backend: Backend
    """The backend that answered the call, whichever source it used."""
    source: str
    """`local`, or `swarm`."""
    age_ms: float | None
    """How long ago this node last knew that it had what the other holders have; 0: just asked; None: never."""
    replicas: int
    """How many nodes, this one included, are known to hold the answer."""
    siblings: int
    """How many other heads there are."""
    is_degraded: bool
    """Whether the backend could not do what it normally does; `reason` says why."""
    reason: str = ""


class Freshness(NamedTuple):
    """Whether this machine's own store may answer for a key, as the backend decides it."""

    since: float
    """When this store last had everything that the other holders wrote, on trio's clock; minus infinity: never."""
    age_max_seconds: float
    """How old its answers may be. Infinity: no other store is asked (mock). 0: it never answers (real)."""

    @property
    def is_final(self) -> bool:
        """Whether an answer from this store never expires."""
        return self.age_max_seconds == inf


class Answer(NamedTuple):
    """The heads of a key, the latest first (none: absent), and where they came from."""

    heads: tuple[Envelope | Notice, ...]
    """The readable heads (`node/dht/readable_heads.py`); the first one has its content."""
    provenance: Provenance
    without_content: tuple[Notice, ...] = ()
    """Known versions whose content is not to be had, the latest first: they end none of the heads."""


class Extent(NamedTuple):
    """The part of a history that is needed: so many versions from its end, or from its beginning."""

    length: int
    is_from_end: bool


class VersionHistory(NamedTuple):
    """Versions in the total order, earliest first."""

    versions: tuple[Version, ...]
    total: int
    is_complete: bool
    """False when too few of the holders answered."""
    provenance: Provenance
    missing: tuple[bytes, ...] = ()
    """Parents of these versions that none of the nodes asked knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    peer: str
    addresses: tuple[str, ...]


class DHT(Protocol):
    @property
    def backend(self) -> Backend: ...

    @property
    def write_quorum(self) -> int:
        """How many peers must acknowledge a write before it counts as replicated; 0: no peer is asked."""
        ...

    @property
    def asks_swarm(self) -> bool:
        """Whether other nodes are asked at all."""
        ...

    @property
    def deadline_seconds(self) -> float:
        """The deadline of calls without a `timeout`."""
        ...

    @property
    def store_deadline_seconds(self) -> float:
        """How long a call waits at most for this machine's disk, besides `deadline_seconds` for the swarm."""
        ...

    @property
    def commits_first(self) -> bool:
        """Whether a put is durable here before another node is waited for."""
        ...

    def freshness(self, key: bytes) -> Freshness:
        """Whether this store may answer for a key. From memory."""
        ...

    async def get_here(self, key: bytes) -> Answer | None:
        """The heads of a key, when this store may answer for them now; None: the swarm must be asked.

        It never waits for another node, so callers try it first.
        """
        ...

    async def put(
        self,
        envelope: Envelope,
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        on_merged: Callable[[], None] | None = None,
    ) -> Receipt:
        """Write a version. `timeout` in seconds replaces the backend's own deadline.

        `on_merged` is called once the version is durable here and a head: the next version of this key may be written
        on top of it, though the swarm has not acknowledged yet.
        """
        ...

    async def get(
        self, key: bytes, *, consistency: Consistency = Consistency.AUTO, timeout: float | None = None
    ) -> Answer:
        """The heads of a key."""
        ...

    async def get_version(
        self, key: bytes, digest: bytes, *, consistency: Consistency = Consistency.AUTO, timeout: float | None = None
    ) -> Answer:
        """One version by its digest (an answer of at most one)."""
        ...

    async def history(
        self, key: bytes, *, consistency: Consistency = Consistency.AUTO, after: int = 0, limit: int = 1000,
        extent: Extent | None = None, timeout: float | None = None,
    ) -> VersionHistory:  # fmt: skip
        """The versions of a key from the `after`-th on. Other nodes are asked for `extent`, by default for all."""
        ...

    async def get_content(
        self, content_digest: bytes, *, consistency: Consistency = Consistency.AUTO, timeout: float | None = None
    ) -> Answer:
        """A version with this content, whatever its address (an answer of at most one). What comes from another node is
        checked, and not kept."""
        ...

    async def provide(self, key: bytes, *, timeout: float | None = None) -> int:
        """Announce that this node provides a key of the DHT; return how many peers recorded it."""
        ...

    async def find_providers(self, key: bytes, *, timeout: float | None = None) -> tuple[Provider, ...]:
        """Who provides a key, as this node and other peers know. The addresses are what peers say: a caller that
        dials one makes sure that it leads to the provider."""
        ...
