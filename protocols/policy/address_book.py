"""Whom to dial, and when again: sightings in, dials and forgetting out.

A sighting is an address, from whoever saw it: the configuration, a peer that told us, a finder. A target is a peer
(once its id is known) or a bare address (as a bootstrap address without an id is). Every target that is not
connected is dialled, one attempt at a time, again after a backoff; configured ones for ever, others until they were
not seen for the forgetting horizon. Whom others speak of is not seen by that, or two could keep a dead one alive.

One of whom we have another peer's word alone is hearsay, and may be a lie: it is dialled ever more rarely when nobody
is there, whatever else is told of it, or one tale of a thousand peers would keep us dialling for a day.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import inf

from protocols.policy.backoff import backoff
from protocols.policy.machine import Tick

ADDRESSES_MAX = 16
"""Addresses kept a target, those in the configuration aside; the oldest goes first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighted:
    """Somebody says that a peer can be reached at these addresses. `peer` is '' while its id is not known."""

    peer: str
    addresses: tuple[str, ...]
    source: str
    is_configured: bool = False
    seen_at: float | None = None
    """When it was really seen last, if that was before now (a member remembered from an earlier run)."""
    is_hearsay: bool = False
    """Another peer says so."""


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
    is_hearsay: bool = False
    """We have nothing but another peer's word for it."""


@dataclass(frozen=True, slots=True)
class Forget:
    """This peer was not seen for the whole horizon."""

    peer: str


Event = Sighted | Connected | Disconnected | Dialled | Banned | Tick
Effect = Dial | Forget


@dataclass(slots=True)
class _Target:
    peer: str
    configured: list[str] = field(default_factory=list)
    """Addresses that stay, whatever others say."""
    heard: list[str] = field(default_factory=list)
    is_connected: bool = False
    is_dialling: bool = False
    failures: int = 0
    """Attempts in a row that gave no connection, or none that lasted."""
    connected_at: float = 0.0
    dial_at: float = 0.0
    seen_at: float = 0.0
    queued_at: float = inf
    """When the machine looks at it next, at the latest."""
    is_hearsay: bool = False

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.configured, *self.heard)))

    def learn(self, addresses: Sequence[str], *, is_configured: bool) -> bool:
        """Whether one of these addresses is new."""
        known, most = (self.configured, None) if is_configured else (self.heard, ADDRESSES_MAX)
        new = [address for address in list(dict.fromkeys(addresses))[:most] if address not in known]
        known.extend(new)
        del self.heard[:-ADDRESSES_MAX]
        return bool(new)


class AddressBook:
    """The machine. `own` is our peer id, which is never dialled; `chance` draws from [0, 1). Times in seconds."""

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
        """A heap of when to look at which target; that it was put off since, or is gone, shows when its time comes."""

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

    def _sighted(self, event: Sighted, now: float) -> Sequence[Effect]:
        name = event.peer or (event.addresses[0] if event.addresses else "")
        is_room = event.is_configured or len(self._targets) < self._targets_max
        if not name or self._is_banned(name) or (name not in self._targets and not is_room):
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
        return self._look(name, now)

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
        else:  # such as one who takes every dial and hangs up at once: it is not to be dialled all the time
            self._put_off(target, now)
        return self._look(peer, now)

    def _dialled(self, name: str, peer: str, now: float) -> Sequence[Effect]:
        target = self._targets[name]
        target.is_dialling = False
        if name == peer:  # connected was told already, or it broke meanwhile
            target.dial_at = max(target.dial_at, now + self._base)
        elif target.peer or not peer:  # nobody was there, or not the one who was meant
            self._put_off(target, now)
        else:
            del self._targets[name]
        effects = self._look(name, now) if name in self._targets else ()
        if peer not in ("", name) and not self._is_banned(peer):
            return (*effects, *self._found(peer, target, now))
        return effects

    def _found(self, peer: str, target: _Target, now: float) -> Sequence[Effect]:
        """Another one than the target was behind one of its addresses: those that name nobody are that one's now."""
        own = [address for address in target.configured if target.peer and address.endswith(f"/p2p/{target.peer}")]
        found = self._targets.setdefault(peer, _Target(peer))
        found.learn([address for address in target.configured if address not in own], is_configured=True)
        target.configured[:] = own
        if not target.peer:
            found.learn(target.heard, is_configured=False)
        found.seen_at = now
        found.dial_at = max(found.dial_at, now + self._base)
        return self._look(peer, now)

    def _put_off(self, target: _Target, now: float) -> None:
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
                effects += self._look(name, now)
        return tuple(effects)

    def _look(self, name: str, now: float) -> Sequence[Effect]:
        """What is due for one target, now; or when to look again."""
        target = self._targets[name]
        if target.is_connected or target.is_dialling:
            return ()
        forget_at = inf if target.configured else target.seen_at + self._forget
        if now >= forget_at:
            del self._targets[name]
            return (Forget(target.peer),) if target.peer else ()
        addresses = target.addresses
        dial_at = target.dial_at if addresses else inf  # it came to us from where nobody can dial: await a sighting
        if now >= dial_at:
            target.is_dialling = True
            return (Dial(name, addresses, target.is_hearsay),)
        due = min(dial_at, forget_at)
        if due < target.queued_at:
            target.queued_at = due
            heappush(self._queue, (due, name))
        return ()
