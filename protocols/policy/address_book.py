"""Address book: decides which peers to dial, and when; sightings come in, dials and forgotten peers go out.

A sighting is addresses of a peer from one source: the configuration, another peer, a finder. A target is a peer (once
its id is known) or a bare address (such as a bootstrap address without an id). Every target that is not connected is
dialled, one attempt at a time, with a backoff between attempts: a configured one for ever, another until it was not
seen for the forgetting horizon. A mention by another peer does not count as seen, because two nodes could keep a dead
peer alive that way.

A target that is known only from another peer is hearsay, and may be a lie. When it does not answer, it is dialled more
and more rarely, whatever else is reported of it: a peer that reports a thousand peers that do not exist would otherwise
keep this node dialling for a day.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import inf

from protocols.policy.backoff import backoff
from protocols.policy.machine import Tick

ADDRESSES_MAX = 16
"""Addresses kept of one target, beside the configured ones; the oldest is dropped first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighted:
    """A source reports addresses of a peer. `peer` is '' while its id is not known."""

    peer: str
    addresses: tuple[str, ...]
    source: str
    is_configured: bool = False
    seen_at: float | None = None
    """The time when the peer was last seen, if earlier than now (a member known from an earlier run)."""
    is_hearsay: bool = False
    """The source is another peer."""


@dataclass(frozen=True, slots=True)
class Connected:
    peer: str


@dataclass(frozen=True, slots=True)
class Disconnected:
    peer: str


@dataclass(frozen=True, slots=True)
class Dialled:
    """A dial ended. `peer` is the peer that answered, or ''."""

    target: str
    peer: str


@dataclass(frozen=True, slots=True)
class Banned:
    """A peer is of another swarm, or is this node itself: it is never dialled again."""

    peer: str
    target: str = ""


@dataclass(frozen=True, slots=True)
class Removed:
    """An operator had a peer forgotten: it is not dialled until it is sighted again, unless it is configured."""

    peer: str


@dataclass(frozen=True, slots=True)
class Dial:
    target: str
    addresses: tuple[str, ...]
    is_hearsay: bool = False
    """The target is known only from another peer."""


@dataclass(frozen=True, slots=True)
class Forget:
    """A peer was not seen for the whole horizon."""

    peer: str


Event = Sighted | Connected | Disconnected | Dialled | Banned | Removed | Tick
Effect = Dial | Forget


@dataclass(slots=True)
class _Target:
    peer: str
    configured: list[str] = field(default_factory=list)
    """Addresses of the configuration, which are never dropped."""
    heard: list[str] = field(default_factory=list)
    is_connected: bool = False
    is_dialling: bool = False
    failures: int = 0
    """Attempts in a row without a connection that lasted."""
    connected_at: float = 0.0
    dial_at: float = 0.0
    seen_at: float = 0.0
    queued_at: float = inf
    """The time of its entry in the queue."""
    is_hearsay: bool = False

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.configured, *self.heard)))

    def learn(self, addresses: Sequence[str], *, is_configured: bool) -> bool:
        """Add addresses. Returns whether one of them is new."""
        known, most = (self.configured, None) if is_configured else (self.heard, ADDRESSES_MAX)
        new = [address for address in list(dict.fromkeys(addresses))[:most] if address not in known]
        known.extend(new)
        del self.heard[:-ADDRESSES_MAX]
        return bool(new)


class AddressBook:
    """The machine. `own` is this node's peer id, which is never dialled; `chance` draws from [0, 1). Times in
    seconds.
    """

    def __init__(
        self,
        own: str,
        *,
        chance: Callable[[], float],
        forget_seconds: float = 24 * 3600.0,
        base_seconds: float = 0.25,
        cap_seconds: float = 5.0,
        hearsay_base_seconds: float = 2.0,
        hearsay_cap_seconds: float = 300.0,
        targets_max: int = 4096,
    ) -> None:
        self._own = own
        self._chance = chance
        self._forget = forget_seconds
        self._base = base_seconds
        self._cap = cap_seconds
        self._hearsay_base = hearsay_base_seconds
        self._hearsay_cap = hearsay_cap_seconds
        self._targets_max = targets_max
        self._targets: dict[str, _Target] = {}
        self._banned: dict[str, None] = {}
        self._queue: list[tuple[float, str]] = []
        """A heap of (time, target). An entry may be outdated: that shows when its time comes."""

    @property
    def deadline(self) -> float | None:
        return self._queue[0][0] if self._queue else None

    def handle(self, event: Event, now: float) -> Sequence[Effect]:
        match event:
            case Sighted():
                return self._sighted(event, now)
            case Connected(peer):
                return self._connected(peer, now)
            case Disconnected(peer) if peer in self._targets:
                return self._disconnected(peer, now)
            case Dialled(name, peer) if name in self._targets:
                return self._dialled(name, peer, now)
            case Banned(peer, name):
                self._ban(peer, name)
            case Removed(peer) if peer in self._targets:
                self._remove(peer)
            case Tick():
                return self._tick(now)
            case _:
                pass
        return ()

    def _is_banned(self, name: str) -> bool:
        return name == self._own or name in self._banned

    def _ban(self, peer: str, name: str) -> None:
        self._banned[peer] = None
        if len(self._banned) > self._targets_max:
            del self._banned[next(iter(self._banned))]
        self._targets.pop(peer, None)
        self._targets.pop(name, None)

    def _remove(self, peer: str) -> None:
        target = self._targets[peer]
        if target.configured:
            target.heard.clear()
        else:
            del self._targets[peer]

    def _sighted(self, event: Sighted, now: float) -> Sequence[Effect]:
        name = event.peer or (event.addresses[0] if event.addresses else "")
        has_room = event.is_configured or len(self._targets) < self._targets_max
        if not name or self._is_banned(name) or (name not in self._targets and not has_room):
            return ()
        target = self._targets.get(name)
        if target is None:
            seen_at = now if event.seen_at is None else event.seen_at
            target = self._targets[name] = _Target(
                event.peer, dial_at=now, seen_at=seen_at, is_hearsay=event.is_hearsay
            )
        is_news = target.learn(event.addresses, is_configured=event.is_configured)
        if target.is_hearsay:
            target.is_hearsay = event.is_hearsay
            is_news = not event.is_hearsay or (is_news and not target.failures)
        if is_news:
            target.dial_at = min(target.dial_at, now)
        return self._review(name, now)

    def _connected(self, peer: str, now: float) -> Sequence[Effect]:
        target = self._targets.setdefault(peer, _Target(peer))
        target.is_connected = True
        target.is_hearsay = False
        target.connected_at = target.seen_at = now
        return ()

    def _disconnected(self, peer: str, now: float) -> Sequence[Effect]:
        target = self._targets[peer]
        target.is_connected = False
        target.seen_at = now
        if now - target.connected_at >= self._cap:
            target.failures = 0
            target.dial_at = now
        else:  # a peer may accept every dial and close at once: without a backoff it would be dialled all the time
            self._postpone(target, now)
        return self._review(peer, now)

    def _dialled(self, name: str, peer: str, now: float) -> Sequence[Effect]:
        target = self._targets[name]
        target.is_dialling = False
        if name == peer:  # `Connected` has come already, or the connection is gone again
            target.dial_at = max(target.dial_at, now + self._base)
        elif target.peer or not peer:  # no peer answered, or another one than the target
            self._postpone(target, now)
        else:
            del self._targets[name]
        effects = self._review(name, now) if name in self._targets else ()
        if peer not in ("", name) and not self._is_banned(peer):
            return (*effects, *self._found(peer, target, now))
        return effects

    def _found(self, peer: str, target: _Target, now: float) -> Sequence[Effect]:
        """Another peer answered at an address of the target: the addresses that name no peer are moved to it."""
        own = [address for address in target.configured if target.peer and address.endswith(f"/p2p/{target.peer}")]
        found = self._targets.setdefault(peer, _Target(peer))
        found.learn([address for address in target.configured if address not in own], is_configured=True)
        target.configured[:] = own
        if not target.peer:
            found.learn(target.heard, is_configured=False)
        found.seen_at = now
        found.dial_at = max(found.dial_at, now + self._base)
        return self._review(peer, now)

    def _postpone(self, target: _Target, now: float) -> None:
        target.failures += 1
        base, cap = (self._hearsay_base, self._hearsay_cap) if target.is_hearsay else (self._base, self._cap)
        target.dial_at = now + backoff(target.failures, base=base, cap=cap, chance=self._chance())

    def _tick(self, now: float) -> Sequence[Effect]:
        effects: list[Effect] = []
        while self._queue and self._queue[0][0] <= now:
            at, name = heappop(self._queue)
            target = self._targets.get(name)
            if target is not None and target.queued_at == at:
                target.queued_at = inf
                effects += self._review(name, now)
        return tuple(effects)

    def _review(self, name: str, now: float) -> Sequence[Effect]:
        """The effects that are due for one target now; or else it is queued for its next time."""
        target = self._targets[name]
        if target.is_connected or target.is_dialling:
            return ()
        forget_at = inf if target.configured else target.seen_at + self._forget
        if now >= forget_at:
            del self._targets[name]
            return (Forget(target.peer),) if target.peer else ()
        addresses = target.addresses
        dial_at = target.dial_at if addresses else inf  # without addresses wait for a sighting
        if now >= dial_at:
            target.is_dialling = True
            return (Dial(name, addresses, target.is_hearsay),)
        due = min(dial_at, forget_at)
        if due < target.queued_at:
            target.queued_at = due
            heappush(self._queue, (due, name))
        return ()
