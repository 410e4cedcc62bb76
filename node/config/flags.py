"""Flags: the settings that can change while a node runs, as one frozen value.

What the configuration says is the ground (`Flags.of`); what was set at run time lies over it, name by name; and over
both there may be one override, which somebody set for a reason and for a time. `node/config/changes.py` reads what
people ask for, `node/services/control/flag_store.py` puts it in force.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any

from node.config.settings import Settings
from protocols.errors import InvalidPayload


class Force(StrEnum):
    """What an override forces."""

    MOCK = "mock"
    """This machine alone answers, whatever the backend is."""
    OPEN = "open"
    """The breaker is open: the swarm is not asked."""
    CLOSED = "closed"
    """The breaker is closed: the swarm is asked, whatever came of it before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """One thing forced, by somebody, for a reason, until a time (Unix milliseconds)."""

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
    def from_dict(cls, told: Mapping[str, Any]) -> "Override":
        """What `as_dict` wrote. Raises `KeyError`, `TypeError` or `ValueError` for anything else."""
        return cls(
            force=Force(told["force"]), reason=str(told["reason"]), author=str(told["author"]),
            since_ms=int(told["since_ms"]), expires_ms=int(told["expires_ms"]),
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """What is in force. The fields are those of `Settings` with the same name, which says what they mean."""

    backend: str = "hybrid"
    dht_enabled: bool = True
    fallback_on_error: bool | None = None
    rollout_percent: float = 100.0
    shadow_percent: float = 0.0
    deadline_ms: int = 100
    real_deadline_ms: int = 1_000
    write_quorum: int | None = None
    read_quorum: int = 2
    read_freshness_ms: int = 5_000
    threshold_errors: int = 3
    backoff_ms: int = 1_000
    health_check_interval_ms: int = 30_000
    cache_enabled: bool = True
    cache_ttl_ms: int = 300_000
    use_distributed_resolver: bool = False
    sync_enabled: bool = True
    discovery_configured: bool = True
    discovery_exchange: bool = True
    override: Override | None = field(default=None)

    @classmethod
    def of(cls, settings: Settings) -> "Flags":
        """The flags as the configuration has them."""
        return cls(**{name: getattr(settings, name) for name in NAMES})

    @property
    def in_force(self) -> str:
        """The backend that calls really get: `mock`, `real` or `hybrid`."""
        if not self.dht_enabled or (self.override and self.override.force is Force.MOCK):
            return "mock"
        if self.backend == "real" and self.fallback_on_error:
            return "hybrid"
        return self.backend

    @property
    def has_fallback(self) -> bool:
        """Whether this machine answers where the swarm does not."""
        return self.in_force != "real" and self.fallback_on_error is not False

    def lets_through(self, key: bytes) -> bool:
        """Whether the rollout has reached this key: always the same answer for the same key and percentage, and a key
        that is in at one percentage is in at every higher one."""
        return self.rollout_percent >= 100.0 or share_of(key) < self.rollout_percent

    def holds_back(self, key: bytes) -> bool:
        """Whether what this node owes others of this key is kept for now: paid to nobody, and forgotten by nobody."""
        return not self.sync_enabled or self.in_force == "mock" or not self.lets_through(key)

    def values(self) -> dict[str, Any]:
        """Each flag by name, without the override."""
        return {name: getattr(self, name) for name in NAMES}


NAMES = tuple(one.name for one in fields(Flags) if one.name != "override")


def share_of(key: bytes) -> float:
    """Where a key stands in the rollout, from 0 to (just under) 100: its hash, so the same on every node for ever."""
    digest = hashlib.sha256(b"bzzz rollout\0" + key).digest()
    return int.from_bytes(digest[:6]) * 100.0 / (1 << 48)


def check(flags: Flags, ground: Flags, *, replication: int) -> None:
    """Refuse what was set at run time (over `ground`) and contradicts what cannot change. Raises `InvalidPayload`."""
    for name in ("write_quorum", "read_quorum"):
        number = getattr(flags, name)
        if number is not None and number > replication and number != getattr(ground, name):
            raise InvalidPayload(
                f"{name}: a quorum of {number} is never reached with replication {replication}",
                field=name, provided=str(number), expected=f"at most {replication}",
            )  # fmt: skip


def over(ground: Flags, set_here: Mapping[str, Any], override: Override | None) -> Flags:
    """The flags in force: the configured ones, what was set at run time, and the override."""
    return replace(ground, **set_here, override=override)


def notes(flags: Flags) -> list[str]:
    """What a person should be told of the flags in force, for it may not be what their values say at first sight."""
    told = []
    if flags.backend == "real" and flags.fallback_on_error:
        told.append("backend real with fallback_on_error=true is hybrid; set fallback_on_error=false for real alone")
    if not flags.dht_enabled and flags.backend != "mock":
        told.append(f"dht_enabled is false: this machine alone answers, and backend {flags.backend} waits")
    if flags.in_force != "mock" and flags.rollout_percent < 100.0:
        told.append(f"{flags.in_force} is used for {flags.rollout_percent:g} % of the addresses, mock for the others")
    if flags.use_distributed_resolver and flags.in_force == "mock":
        told.append("use_distributed_resolver is true: with mock in force there is nobody to ask for a history")
    if not flags.sync_enabled:
        told.append("sync_enabled is false: what this node owes to others is kept, and handed to nobody")
    if flags.override:
        told.append(f"forced {flags.override.force} by {flags.override.author}: {flags.override.reason}")
    return told
