"""Whom to dial, and when again: sightings in, dials and forgetting out.

A sighting is an address, from whoever saw it: the configuration, a peer that told us, a finder. A target is a peer
(once its id is known) or a bare address (as a bootstrap address without an id is). Every target that is not
connected is dialled, one attempt at a time, again after a backoff; configured ones for ever, others until they were
not seen for the forgetting horizon.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from protocols.machine import Tick
from protocols.retry import backoff

ADDRESSES_MAX = 16
"""Addresses kept a target; the oldest goes first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighted:
    """Somebody says that a peer can be reached at these addresses. `peer` is '' while its id is not known."""

    peer: str
    addresses: tuple[str, ...]
    source: str
    is_configured: bool = False
    seen_at: float | None = None
    """When it was really seen last, if that was before now (a member remembered from an earlier run)."""


@dataclass(frozen=True, slots=True)
class Connected:
    peer: str


@dataclass(frozen=True, slots=True)
class Disconnected:
    peer: str


@dataclass(frozen=True, slots=True)
class Dialled:
    """A dial ended: `peer` is who answered, or '' when nobody did."""

    target: str
    peer: str


@dataclass(frozen=True, slots=True)
class Banned:
    """This peer is of another swarm, or is ourselves: never dial it again."""

    peer: str
    target: str = ""


@dataclass(frozen=True, slots=True)
class Dial:
    target: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Forget:
    """This peer was not seen for the whole horizon."""

    peer: str


Event = Sighted | Connected | Disconnected | Dialled | Banned | Tick
Effect = Dial | Forget


@dataclass(slots=True)
class _Target:
    peer: str
    addresses: list[str] = field(default_factory=list)
    is_configured: bool = False
    is_connected: bool = False
    is_dialling: bool = False
    failures: int = 0
    dial_at: float = 0.0
    seen_at: float = 0.0


class Peers:
    """The machine. `own` is our peer id, which is never dialled; `chance` draws from [0, 1). Times in seconds."""

    def __init__(
        self,
        own: str,
        *,
        chance: Callable[[], float],
        forget_seconds: float = 24 * 3600.0,
        base_seconds: float = 0.25,
        cap_seconds: float = 5.0,
        targets_max: int = 4096,
    ) -> None:
        self._own = own
        self._chance = chance
        self._forget = forget_seconds
        self._base = base_seconds
        self._cap = cap_seconds
        self._targets_max = targets_max
        self._targets: dict[str, _Target] = {}
        self._banned: dict[str, None] = {own: None}

    @property
    def deadline(self) -> float | None:
        due = [self._due(target) for target in self._targets.values()]
        return min((at for at in due if at is not None), default=None)

    def _due(self, target: _Target) -> float | None:
        if target.is_connected or target.is_dialling:
            return None
        return target.dial_at if target.is_configured else min(target.dial_at, target.seen_at + self._forget)

    def handle(self, event: Event, now: float) -> Sequence[Effect]:
        match event:
            case Sighted():
                self._sighted(event, now)
            case Connected(peer):
                target = self._target(peer, peer)
                target.is_connected = True
                target.failures = 0
                target.seen_at = now
            case Disconnected(peer) if peer in self._targets:
                target = self._targets[peer]
                target.is_connected = False
                target.seen_at = now
                target.dial_at = now
            case Dialled(name, peer) if name in self._targets:
                self._dialled(name, peer, now)
            case Banned(peer, name):
                self._banned[peer] = None
                self._targets.pop(peer, None)
                self._targets.pop(name, None)
            case _:
                pass
        return self._due_now(now)

    def _target(self, name: str, peer: str) -> _Target:
        return self._targets.setdefault(name, _Target(peer=peer))

    def _sighted(self, event: Sighted, now: float) -> None:
        name = event.peer or (event.addresses[0] if event.addresses else "")
        is_room = event.is_configured or len(self._targets) < self._targets_max
        if not name or name in self._banned or (name not in self._targets and not is_room):
            return
        is_new = name not in self._targets
        target = self._target(name, event.peer)
        target.is_configured = target.is_configured or event.is_configured
        if is_new:
            target.dial_at = now
            target.seen_at = now if event.seen_at is None else event.seen_at
        for address in event.addresses:
            if address not in target.addresses:
                target.addresses.append(address)
                del target.addresses[:-ADDRESSES_MAX]
                target.dial_at = min(target.dial_at, now)

    def _dialled(self, name: str, peer: str, now: float) -> None:
        target = self._targets[name]
        target.is_dialling = False
        if not peer:
            target.failures += 1
            target.dial_at = now + backoff(target.failures, base=self._base, cap=self._cap, chance=self._chance())
            return
        target.failures = 0
        if name != peer:  # a bare address: the peer behind it is the target from now on
            del self._targets[name]
            known = self._target(peer, peer)
            known.is_configured = known.is_configured or target.is_configured
            known.addresses.extend(a for a in target.addresses if a not in known.addresses)
            known.seen_at = now
        else:  # connected was told already, or it broke meanwhile: then dial again after a moment
            target.dial_at = now + self._base

    def _due_now(self, now: float) -> Sequence[Effect]:
        effects: list[Effect] = []
        for name, target in list(self._targets.items()):
            due = self._due(target)
            if due is None or now < due:
                continue
            if not target.is_configured and now - target.seen_at >= self._forget:
                del self._targets[name]
                effects.append(Forget(target.peer))
            elif target.addresses:
                target.is_dialling = True
                effects.append(Dial(name, tuple(target.addresses)))
            else:  # it came to us from an address that nobody can dial: wait for a sighting
                target.dial_at = now + self._cap
        return effects
