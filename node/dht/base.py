"""The DHT as everything above sees it: one Protocol, three backends (mock, real, hybrid) over one store.

Envelopes come in signed and verified; `node/services/writes/author.py`, which makes them, holds the key's lock
meanwhile. Who calls: the author, the resolver and the API. Each call ends within its deadline, which runs from
entry and includes the commit. Raises `Unavailable`, `Indeterminate`, `Rejected`, `StorageFull`; an absent thing is
an answer, never an error.
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
    """`auto`: the backend's own way. `local`: this store. `swarm`: the holders, and nothing else will do."""

    AUTO = "auto"
    LOCAL = "local"
    SWARM = "swarm"


class Durability(StrEnum):
    REPLICATED = "replicated"
    """The write quorum of peers has it."""
    PENDING = "pending"
    """It is safe on this machine, and fewer peers than the write quorum have it yet."""
    AT_RISK = "at risk"
    """The quorum has it, but not yet every wanted holder."""
    LOCAL = "local"
    """The mock backend: this machine's, and nobody was asked."""


class Receipt(NamedTuple):
    """What a write gets back: where it is, and how durable."""

    backend: Backend
    """Who answered: `real` when the swarm acknowledged, else `mock`."""
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
    reissued_as: bytes | None = None
    """The version that stands in for this one since this node's clock was mended."""

    @classmethod
    def of(
        cls,
        written: Envelope | Notice,
        standing: Standing,
        *,
        log_id: str,
        quorum: int,
        elapsed_seconds: float = 0.0,
        asked: bytes | None = None,
    ) -> "Receipt":
        """The receipt of a write that stands like this. `quorum` is that of the backend, 0 where nobody is asked.

        `asked` is the digest that was asked for; `written` stands in for it where it was issued again.
        """
        acknowledged = len(standing.acknowledged)
        return cls(
            backend=Backend.REAL if quorum and acknowledged >= quorum else Backend.MOCK,
            acknowledged=acknowledged,
            wanted=standing.wanted,
            quorum=quorum,
            elapsed_ms=elapsed_seconds * 1000.0,
            log_id=log_id,
            sequence=standing.sequence,
            address=written.address,
            version=written.version,
            digest=written.digest,
            parents=written.parents,
            reissued_as=standing.digest if asked is not None and asked != standing.digest else None,
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
    """What a read tells about where it came from."""

    backend: Backend
    source: str
    """`local`, or `swarm`."""
    age_ms: float | None
    """How long ago this node last knew that it had what the other holders have; 0: just asked; None: never."""
    replicas: int
    """How many nodes, this one included, were found to hold the answer."""
    siblings: int
    """How many other heads there are."""
    is_degraded: bool
    """True: the backend could not do what it normally does; `reason` says why."""
    reason: str = ""


class Freshness(NamedTuple):
    """How far this machine's own store may answer for a key, as its backend sees it."""

    since: float
    """When this store last lacked nothing that another holder wrote, on trio's clock; minus infinity: never."""
    age_max_seconds: float
    """How old its answers may be. Infinity: this store is all there is (mock). 0: it never answers (real)."""

    @property
    def is_final(self) -> bool:
        """Whether an answer from this store never gets old."""
        return self.age_max_seconds == inf


class Answer(NamedTuple):
    """The heads of a key, the latest first (none: absent), and where they came from."""

    heads: tuple[Envelope | Notice, ...]
    provenance: Provenance


class VersionHistory(NamedTuple):
    """Versions in the total order, the first one first."""

    versions: tuple[Version, ...]
    total: int
    is_complete: bool
    """False when holders that should have been asked did not answer."""
    provenance: Provenance
    missing: tuple[bytes, ...] = ()
    """Versions that these were written on top of, and that nobody who was asked has told of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    peer: str
    addresses: tuple[str, ...]


class DHT(Protocol):
    @property
    def backend(self) -> Backend: ...

    @property
    def write_quorum(self) -> int:
        """How many peers must acknowledge a write before it counts as replicated; 0: nobody is asked."""
        ...

    @property
    def asks_swarm(self) -> bool:
        """Whether other nodes are asked at all; False: this store is all there is."""
        ...

    @property
    def deadline_seconds(self) -> float:
        """How long a call takes at most that names no timeout of its own."""
        ...

    def freshness(self, key: bytes) -> Freshness:
        """How far this store may answer for a key. Quick, from memory."""
        ...

    async def get_here(self, key: bytes) -> Answer | None:
        """The heads of a key, where this store may answer for them now; None: nobody knows without asking the swarm.

        It never waits for another node, so it is what to try before anything is kept, shared or asked.
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

        `on_merged` is called once the version is durable here and a head: whoever waits to write the next version of
        this key on top of it may go on, though the swarm has not acknowledged yet.
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
        timeout: float | None = None,
    ) -> VersionHistory: ...  # fmt: skip

    async def provide(self, key: bytes, *, timeout: float | None = None) -> int:
        """Say that this node provides a key; answer how many peers took note."""
        ...

    async def find_providers(self, key: bytes, *, timeout: float | None = None) -> tuple[Provider, ...]: ...
