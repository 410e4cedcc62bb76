"""Flags: the settings that can change while a node runs, as one frozen value.

`FlagValues` declares each flag once. Three layers give the value that is in force: the configuration (`Flags.of`), what
was set at run time, flag by flag, and one override, which has a reason and an end. `node/config/changes.py` reads a
change at run time, `node/services/control/flag_store.py` puts it in force.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any

from node.config import values
from node.config.options import Alternative, setting
from protocols.errors import InvalidPayload


def _use_real_dht(value: object) -> str | None:
    """`true` is the backend `real`; `false` sets nothing, because this name knows no other backend."""
    return "real" if values.boolean(value) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagValues:
    """The flags, each declared here and nowhere else. A duration is in the unit that its name ends in."""

    backend: str = setting(
        "hybrid",
        values.one_of("mock", "real", "hybrid"),
        "dht_backend",
        "dht.backend",
        alternatives=(Alternative("use_real_dht", _use_real_dht, is_older=True),),
    )
    """`mock`: this machine alone. `real`: the swarm or an error. `hybrid`: both."""
    dht_enabled: bool = setting(True, values.boolean, "dht_enabled", "dht.enabled")
    """False: as if the backend were mock, until it is true again. The host goes on and serves other nodes."""
    fallback_on_error: bool | None = setting(None, values.boolean, "fallback_on_error", "dht.fallback.enabled")
    """None: not set. True with `real`: hybrid. False with `hybrid`: errors instead of answers that are pending."""
    rollout_percent: float = setting(100.0, values.percent, "rollout_percent", "dht.rollout_percent")
    """The share of keys, by hash, for which the backend is used; this machine alone answers for the others."""
    shadow_percent: float = setting(0.0, values.percent, "shadow_percent", "dht.shadow_percent")
    """The share of local reads that are also asked of the swarm, and compared."""
    deadline_ms: int = setting(100, values.milliseconds_between(1, 60_000))
    """The longest that a call waits for the swarm with `hybrid`."""
    real_deadline_ms: int = setting(1_000, values.milliseconds_between(1, 60_000))
    """The longest that a call waits for the swarm with `real`."""
    store_deadline_ms: int = setting(5_000, values.milliseconds_between(100, 600_000))
    """The longest that a call waits for this machine's own disk, besides the wait for the swarm."""
    store_slow_ms: int = setting(250, values.milliseconds_between(1, 600_000))
    """Commits that repeatedly take longer than this make the store degraded."""
    write_quorum: int | None = setting(None, values.count(1, 1_000))
    """Peers that must acknowledge a write before it counts as replicated. None: 2 with `real`, 1 with `hybrid`."""
    read_quorum: int = setting(2, values.count(1, 1_000))
    """Holders that a read of the swarm asks first, and answers it needs."""
    read_freshness_ms: int = setting(5_000, values.milliseconds_between(0, 3_600_000))
    """With `hybrid`, the greatest age of an answer from this machine alone: the time since its last reconciliation with
    the other holders."""
    threshold_errors: int = setting(3, values.count(1, 1_000), "threshold_errors", "dht.fallback.threshold_errors")
    """Operations in a row that no peer answers before the circuit breaker opens."""
    backoff_ms: int = setting(1_000, values.milliseconds_between(1, 600_000), "backoff_ms", "dht.fallback.backoff_ms")
    """For how long the breaker stays open before its first probe."""
    health_check_interval_ms: int = setting(
        30_000, values.milliseconds_between(1_000, 3_600_000), "health_check_interval"
    )
    """Between two health probes."""
    cache_enabled: bool = setting(True, values.boolean, "cache_enabled", "cache.enabled")
    """Whether the resolver keeps recent answers."""
    cache_ttl_ms: int = setting(300_000, values.milliseconds_between(1, 86_400_000), "cache_ttl", "cache.ttl")
    """The longest that the resolver keeps an answer."""
    use_distributed_resolver: bool = setting(False, values.boolean, "use_distributed_resolver", "resolver.distributed")
    """True: every temporal read asks the holders for the history."""
    sync_enabled: bool = setting(True, values.boolean, "sync_enabled", "sync.enabled")
    """False: hints are kept, and none is delivered; nor are other holders given what others wrote."""
    discovery_manual: bool = setting(True, values.boolean, "discovery_manual", "discovery.manual")
    """False: the multiaddrs among the bootstrap nodes are not dialled, but for those of peers that are known."""
    discovery_api: bool = setting(True, values.boolean, "discovery_api", "discovery.api")
    """False: the APIs among the bootstrap nodes are not asked."""
    discovery_store: bool = setting(True, values.boolean, "discovery_store", "discovery.store")
    """False: the members of earlier runs are not dialled because they are remembered. They are still members."""
    discovery_mdns: bool = setting(True, values.boolean, "mdns", "discovery.mdns")
    """False: the node neither looks for others on the local network nor shows itself there."""
    discovery_exchange: bool = setting(True, values.boolean, "discovery_exchange", "discovery.exchange")
    """False: members are not asked for the members they know."""
    discovery_announce: bool = setting(True, values.boolean, "discovery_announce", "discovery.announce")
    """False: this node neither announces itself nor takes what others announce."""
    discovery_dht: bool = setting(True, values.boolean, "discovery_dht", "discovery.dht")
    """False: rendezvous keys are neither provided nor looked up in the DHT."""


NAMES = tuple(declared.name for declared in fields(FlagValues))
"""The flags by name."""


class Force(StrEnum):
    """What an override forces."""

    MOCK = "mock"
    """This machine alone answers, whatever the backend is."""
    OPEN = "open"
    """The breaker is open: the swarm is not asked."""
    CLOSED = "closed"
    """The breaker is closed: the swarm is asked, whatever the breaker has counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """One thing forced, with its author and reason, until a time (Unix milliseconds)."""

    force: Force
    reason: str
    author: str
    since_ms: int
    expires_ms: int

    def as_dict(self) -> dict[str, Any]:
        return {
            "force": self.force.value, "reason": self.reason, "author": self.author, "since_ms": self.since_ms,
            "expires_ms": self.expires_ms,
        }  # fmt: skip

    @classmethod
    def from_dict(cls, written: Mapping[str, Any]) -> "Override":
        """Read what `as_dict` wrote. Raises `KeyError`, `TypeError` or `ValueError` for anything else."""
        return cls(
            force=Force(written["force"]), reason=str(written["reason"]), author=str(written["author"]),
            since_ms=int(written["since_ms"]), expires_ms=int(written["expires_ms"]),
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags(FlagValues):
    """The flags in force, with the override."""

    override: Override | None = None

    @classmethod
    def of(cls, configured: FlagValues) -> "Flags":
        """The flags of the configuration."""
        return cls(**{name: getattr(configured, name) for name in NAMES})

    @property
    def in_force(self) -> str:
        """The backend that calls get: `mock`, `real` or `hybrid`."""
        if not self.dht_enabled or (self.override and self.override.force is Force.MOCK):
            return "mock"
        if self.backend == "real" and self.fallback_on_error:
            return "hybrid"
        return self.backend

    @property
    def has_fallback(self) -> bool:
        """Whether this machine answers when the swarm does not."""
        return self.in_force != "real" and self.fallback_on_error is not False

    def lets_through(self, key: bytes) -> bool:
        """Whether the rollout includes this key: always the same answer for one key and percentage, and a key that is
        in at one percentage is in at every higher one."""
        return self.rollout_percent >= 100.0 or share_of(key) < self.rollout_percent

    def holds_back(self, key: bytes) -> bool:
        """Whether this node's hints for the key are kept for now: delivered to no holder, and dropped for none."""
        return not self.sync_enabled or self.in_force == "mock" or not self.lets_through(key)

    def values(self) -> dict[str, Any]:
        """Each flag by name, without the override."""
        return {name: getattr(self, name) for name in NAMES}


def share_of(key: bytes) -> float:
    """The place of a key in the rollout, from 0 to (just under) 100: from its hash, so the same on every node."""
    digest = hashlib.sha256(b"bzzz rollout\0" + key).digest()
    return int.from_bytes(digest[:6]) * 100.0 / (1 << 48)


def check(flags: Flags, ground: Flags, *, replication: int) -> None:
    """Refuse a flag set at run time (over `ground`, the configured ones) that contradicts a setting that cannot change.

    Raises `InvalidPayload`.
    """
    for name in ("write_quorum", "read_quorum"):
        number = getattr(flags, name)
        if number is not None and number > replication and number != getattr(ground, name):
            raise InvalidPayload(
                f"{name}: a quorum of {number} is never reached with replication {replication}",
                field=name, provided=str(number), expected=f"at most {replication}",
            )  # fmt: skip


def refuse_nothing(_: Flags) -> None:
    """Of a node with a network: it can follow all flags."""


def refuse_swarm(flags: Flags) -> None:
    """Refuse flags that a node without a network cannot follow. Raises `InvalidPayload`."""
    is_forced = flags.override is not None and flags.override.force is not Force.MOCK
    if flags.backend != "mock" or is_forced:
        name, value = ("override", flags.override.force) if is_forced and flags.override else ("backend", flags.backend)
        raise InvalidPayload(
            f"{name} {value} needs the swarm, and this node was started with backend mock: it has no host. Start it "
            "with backend hybrid; it can be switched to mock and back while it runs",
            field=name, provided=str(value), expected="mock",
        )  # fmt: skip


def over(ground: Flags, set_here: Mapping[str, Any], override: Override | None) -> Flags:
    """The flags in force: the configured ones (`ground`), those set at run time, and the override."""
    return replace(ground, **set_here, override=override)


def notes(flags: Flags) -> list[str]:
    """Notes for a person about flags in force whose effect their values do not show."""
    notes = []
    if flags.backend == "real" and flags.fallback_on_error:
        notes.append("backend real with fallback_on_error=true is hybrid; set fallback_on_error=false for real alone")
    if not flags.dht_enabled and flags.backend != "mock":
        notes.append(f"dht_enabled is false: this machine alone answers, and backend {flags.backend} waits")
    if flags.in_force != "mock" and flags.rollout_percent < 100.0:
        notes.append(f"{flags.in_force} is used for {flags.rollout_percent:g} % of the addresses, mock for the others")
    if flags.use_distributed_resolver and flags.in_force == "mock":
        notes.append("use_distributed_resolver is true: with mock in force there is no node to ask for a history")
    if not flags.sync_enabled:
        notes.append("sync_enabled is false: hints for others are kept, and none is delivered, nor what others wrote")
    if flags.override:
        notes.append(f"forced {flags.override.force} by {flags.override.author}: {flags.override.reason}")
    return notes
