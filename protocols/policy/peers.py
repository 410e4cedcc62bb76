"""Peers: the one picture of all peers that this node knows of, which decides which of them to dial, and when.

Sightings, dials and connections come in; dials and forgotten peers go out. A target is a peer (once its id is known) or
a bare address (such as a bootstrap address without an id). Every target that is not connected is dialled, one attempt
at a time, with a backoff between attempts: a configured one for ever, another until it was not seen for the forgetting
horizon. An address that becomes known during an attempt is dialled beside it, because the attempt may wait for one that
the peer has left. A sighting does not count as seen, because two nodes could keep a dead peer alive that way.

A sighting may be a lie. So a target that is known only from another peer is dialled more and more rarely, whatever else
is reported of it; the peers that were never met and that one reporter named have a share of the room; and an address at
which another peer answers is not tried again for the peer that was said to be there.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from math import inf

from protocols.policy.backoff import backoff
from protocols.policy.machine import Tick
from protocols.policy.peer_events import (
    ITSELF,
    Banned,
    Connected,
    Dial,
    Dialled,
    Disconnected,
    Effect,
    Event,
    Forget,
    KnownPeer,
    Lost,
    MissingPeer,
    NetworkChanged,
    NoRoom,
    Planned,
    Removed,
    Wanted,
)
from protocols.policy.peer_target import Target
from protocols.policy.sighting import Sighting, Source

SOON_SECONDS = 600.0
"""A peer that was seen within so long is dialled more often than one that is away for longer."""
DIALS_MAX = 4
"""Attempts under way to one peer: the first, and those to addresses that became known meanwhile."""
SELF_SECONDS = 300.0
"""When a configured address that led to this node itself is dialled again: its name may lead elsewhere then."""
VISIT_SECONDS = 3600.0
"""How often, on average, a member is dialled that no connection is kept with: so it is known to be there."""
UNKEPT_CAP_SECONDS = 60.0
"""The longest backoff for such a member, at least."""
VISITS_MIN = 6
"""So often at least within the forgetting horizon."""
RETURN_SECONDS = 5.0
"""Within so long such a member is dialled that was away, when it announces itself or another member is connected with
it: not by all nodes at once."""

_COMPLETE = frozenset({Source.MDNS, Source.API, Source.ANNOUNCE})
"""What one of these reports of a peer is all that it knows: it replaces what it reported before."""


class Peers:
    """The machine. `own` is this node's peer id, which is never dialled; `chance` draws from [0, 1). Times in
    seconds. `soon_cap_seconds` bounds the backoff while no peer is connected, and for peers that were seen lately.
    """

    def __init__(
        self,
        own: str,
        *,
        chance: Callable[[], float],
        forget_seconds: float = 24 * 3600.0,
        base_seconds: float = 0.25,
        soon_cap_seconds: float = 2.0,
        cap_seconds: float = 5.0,
        hearsay_base_seconds: float = 2.0,
        hearsay_cap_seconds: float = 300.0,
        targets_max: int = 4096,
        share_max: int = 1024,
    ) -> None:
        self._own = own
        self._chance = chance
        self._forget = forget_seconds
        self._base = base_seconds
        self._soon_cap = soon_cap_seconds
        self._cap = cap_seconds
        self._hearsay_base = hearsay_base_seconds
        self._hearsay_cap = hearsay_cap_seconds
        self._visit = min(VISIT_SECONDS, forget_seconds / VISITS_MIN)
        self._unkept: frozenset[str] = frozenset()
        self._targets_max = targets_max
        self._share_max = share_max
        self._targets: dict[str, Target] = {}
        self._connected_count = 0
        self._shares: Counter[str] = Counter()
        """By reporter, the targets that it named and that were never met."""
        self._banned: dict[str, str] = {}
        """Why, by peer."""
        self._queue: list[tuple[float, str]] = []
        """A heap of (time, target). An entry may be outdated: that shows when its time comes."""

    @property
    def deadline(self) -> float | None:
        return self._queue[0][0] if self._queue else None

    def picture(self) -> list[KnownPeer]:
        """Every peer and bare address that is known, in the order in which they came; then the refused ones."""
        known = [target.entry() for target in self._targets.values()]
        return known + [Target(peer).entry(refused=why) for peer, why in self._banned.items()]

    def missing(self) -> list[MissingPeer]:
        """The nodes that should be connected and are not."""
        return [missing for target in self._targets.values() if (missing := target.missing()) is not None]

    def is_idle(self, peer: str) -> bool:
        """Whether a member is not connected because it need not be, and can be dialled when it is wanted."""
        target = self._targets.get(peer)
        return target is not None and target.is_idle

    def is_under_way(self, peer: str) -> bool:
        """Whether a peer is being dialled, or is connected."""
        target = self._targets.get(peer)
        return target is not None and (target.is_connected or bool(target.dials))

    def is_away(self, peer: str) -> bool:
        """Whether a peer is not connected, and could not be when it was dialled last."""
        target = self._targets.get(peer)
        return target is not None and not target.is_connected and bool(target.failures)

    def handle(self, event: Event, now: float) -> Sequence[Effect]:
        match event:
            case Sighting():
                return self._sighted(event, now)
            case Lost(peer, source) if peer in self._targets:
                self._lost(peer, source)
            case Connected():
                self._connected(event, now)
            case Disconnected() if event.peer in self._targets:
                return self._disconnected(event, now)
            case Dialled() if event.target in self._targets:
                return self._dialled(event, now)
            case Banned(peer, why):
                self._ban(peer, why)
            case Removed(peer) if peer in self._targets:
                self._remove(peer)
            case NetworkChanged():
                return self._network_changed(now)
            case Planned(unkept):
                return self._planned(unkept, now)
            case Wanted(peer) if self.is_idle(peer):
                self._targets[peer].dial_at = now
                return self._review(peer, now)
            case Tick():
                return self._tick(now)
            case _:
                pass
        return ()

    # -- what is known ----------------------------------------------------------------------------------------

    def _is_banned(self, name: str) -> bool:
        return name == self._own or name in self._banned

    def _ban(self, peer: str, why: str) -> None:
        self._banned[peer] = why
        if len(self._banned) > self._targets_max:
            del self._banned[next(iter(self._banned))]
        self._drop(peer)

    def _drop(self, name: str) -> None:
        if target := self._targets.pop(name, None):
            self._connected_count -= target.is_connected
            self._discharge(target)

    def _discharge(self, target: Target) -> None:
        """The target counts for no share any more."""
        if target.charged_to:
            self._shares[target.charged_to] -= 1
            if not self._shares[target.charged_to]:
                del self._shares[target.charged_to]
            target.charged_to = ""

    def _remove(self, peer: str) -> None:
        target = self._targets[peer]
        if target.addresses.configured():
            target.addresses.drop_all_but_configured()
        else:
            self._drop(peer)

    def _lost(self, peer: str, source: Source) -> None:
        target = self._targets[peer]
        target.addresses.withdraw(source)
        target.sources.pop(source, None)
        if not target.sources and target.connected_at == -inf and not target.dials:
            self._drop(peer)

    def _sighted(self, event: Sighting, now: float) -> Sequence[Effect]:
        name = event.peer or (event.addresses[0] if event.addresses else "")
        if not name or self._is_banned(name):
            return ()
        target = self._targets.get(name)
        if target is None:
            if why := self._why_no_room(event):
                return (NoRoom(event.reporter or event.source, why),)
            target = self._add(name, event, now)
        new = target.addresses.learn(event.addresses, event.source, now)
        if event.source is Source.HELLO:
            target.addresses.replace(event.addresses)
        elif event.source in _COMPLETE:
            target.addresses.withdraw(event.source, but=event.addresses)
        target.sources[event.source] = now
        target.describe(event)
        if event.is_vouched:
            target.vouch(event.reporter, now)
        if not target.is_kept:
            return self._sighted_unkept(event, target, new, now)
        return self._news(name, new, event.is_hearsay, now)

    def _sighted_unkept(self, event: Sighting, target: Target, new: tuple[str, ...], now: float) -> Sequence[Effect]:
        """A sighting of a member that no connection is kept with: it is dialled when it was away and may be back."""
        if target.failures and (new or event.is_vouched or event.source is Source.ANNOUNCE):
            target.dial_at = min(target.dial_at, now + RETURN_SECONDS * self._chance())
        return self._review(target.peer, now)

    def _news(self, name: str, new: tuple[str, ...], is_hearsay: bool, now: float) -> Sequence[Effect]:
        """These addresses of a target are new: it is dialled at once, but for one that was only heard of and failed."""
        target = self._targets[name]
        was_hearsay = target.is_hearsay
        if was_hearsay:
            target.is_hearsay = is_hearsay
        elif 0 < target.dials < DIALS_MAX and new and not target.is_connected:
            target.dials += 1
            return (Dial(name, new),)
        if (was_hearsay and not is_hearsay) or (new and not (was_hearsay and target.failures)):
            target.dial_at = min(target.dial_at, now)
        return self._review(name, now)

    def _why_no_room(self, event: Sighting) -> str:
        """Why a peer that is not known yet is not taken up, or ''. What an operator named always is."""
        if event.is_configured:
            return ""
        if len(self._targets) >= self._targets_max:
            return f"{self._targets_max} peers are known, which is the most"
        if self._shares[event.reporter or event.source] >= self._share_max and event.source is not Source.STORE:
            return f"{self._share_max} peers that it named were never met, which is the most"
        return ""

    def _add(self, name: str, event: Sighting, now: float) -> Target:
        is_kept = event.peer not in self._unkept
        target = self._targets[name] = Target(
            event.peer,
            dial_at=now if is_kept else now + self._visit * self._chance(),
            is_kept=is_kept,
            seen_at=now if event.seen_at is None else event.seen_at,
            is_hearsay=event.is_hearsay,
            charged_to="" if event.source in (Source.CONFIGURATION, Source.STORE) else event.reporter or event.source,
        )
        if target.charged_to:
            self._shares[target.charged_to] += 1
        return target

    # -- connections and dials --------------------------------------------------------------------------------

    def _connected(self, event: Connected, now: float) -> None:
        target = self._targets.setdefault(event.peer, Target(event.peer, is_kept=event.peer not in self._unkept))
        self._connected_count += not target.is_connected
        self._discharge(target)
        target.met(now)
        if event.address:
            target.addresses.worked(event.address, now)

    def _disconnected(self, event: Disconnected, now: float) -> Sequence[Effect]:
        target = self._targets[event.peer]
        self._connected_count -= target.is_connected
        target.is_connected = False
        target.seen_at = now
        target.why = event.why
        if now - target.connected_at >= self._cap:
            target.failures = 0
            target.dial_at = now if target.is_kept else self._next_visit(now)
        else:  # a peer may accept every dial and close at once: without a backoff it would be dialled all the time
            self._postpone(target, now, cap=self._cap)
        return self._review(event.peer, now)

    def _dialled(self, event: Dialled, now: float) -> Sequence[Effect]:
        name, peer = event.target, event.peer
        target = self._targets[name]
        target.dials = max(0, target.dials - 1)
        if not target.is_connected:
            target.why = event.why
        if target.dials and not peer:
            return tuple(self._answered_by_others(event, target, now))  # another attempt is under way
        if name == peer:  # `Connected` has come already, or the connection is gone again
            target.dial_at = max(target.dial_at, now + self._base)
        elif target.peer or not peer:  # no peer answered, or another one than the target
            self._postpone(target, now)
        else:
            self._drop(name)
        found = self._answered_by_others(event, target, now)
        effects = (*(self._review(name, now) if name in self._targets else ()), *found)
        if peer not in ("", name) and not self._is_banned(peer):
            return (*effects, *self._found(peer, target, now))
        return effects

    def _answered_by_others(self, event: Dialled, target: Target, now: float) -> Sequence[Effect]:
        """Other peers proved to be at addresses of the target: they are not its own. A known one is found there."""
        effects: list[Effect] = []
        for address, other in event.others:
            target.addresses.distrust(address, now)
            if other == self._own and not target.peer:
                target.why = ITSELF
                target.dial_at = now + SELF_SECONDS
            elif other in self._targets and other != target.peer:
                new = self._targets[other].addresses.learn((address,), Source.HELLO, now)
                effects += self._news(other, new, False, now)
        return effects

    def _found(self, peer: str, target: Target, now: float) -> Sequence[Effect]:
        """Another peer answered at an address of the target: the addresses that name no peer are moved to it."""
        bare = [text for text in target.addresses.configured() if not text.endswith(f"/p2p/{target.peer}")]
        found = self._targets.setdefault(peer, Target(peer))
        found.addresses.learn(bare, Source.CONFIGURATION, now)
        if bare:
            found.sources[Source.CONFIGURATION] = now
        if target.peer:
            for text in bare:
                target.addresses.drop(text)
        else:
            found.addresses.take(target.addresses)
        found.seen_at = now
        found.dial_at = max(found.dial_at, now + self._base)
        return self._review(peer, now)

    def _postpone(self, target: Target, now: float, *, cap: float | None = None) -> None:
        target.failures += 1
        base, is_soon = self._base, not self._connected_count or now - target.seen_at < SOON_SECONDS
        if cap is None and not is_soon and target.is_claim():
            cap = self._hearsay_cap
        cap = cap or (self._soon_cap if is_soon else self._cap)
        if target.is_hearsay:
            base, cap = self._hearsay_base, self._hearsay_cap
        if not target.is_kept:
            cap = max(cap, UNKEPT_CAP_SECONDS)
        target.dial_at = now + backoff(target.failures, base=base, cap=cap, chance=self._chance())

    def _network_changed(self, now: float) -> Sequence[Effect]:
        """Dial all that are not connected again: over a moment, because there may be hundreds."""
        effects: list[Effect] = []
        for name, target in list(self._targets.items()):
            if not target.is_connected and not target.is_hearsay and not target.is_idle:
                target.failures = 0
                target.dial_at = min(target.dial_at, now + self._base * self._chance())
                effects += self._review(name, now)
        return tuple(effects)

    # -- members that no connection is kept with --------------------------------------------------------------

    def _planned(self, unkept: frozenset[str], now: float) -> Sequence[Effect]:
        """Those that are to be connected from now on are dialled, unless they were in vain a moment ago."""
        changed, self._unkept = self._unkept ^ unkept, unkept
        effects: list[Effect] = []
        for name in sorted(changed & self._targets.keys()):
            target = self._targets[name]
            target.is_kept = name not in unkept
            if not target.failures:
                target.dial_at = now if target.is_kept else self._next_visit(now)
            effects += self._review(name, now)
        return tuple(effects)

    def _next_visit(self, now: float) -> float:
        return now + self._visit * (0.75 + 0.5 * self._chance())

    # -- time -------------------------------------------------------------------------------------------------

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
        if target.is_connected or target.dials:
            return ()
        forget_at = inf if target.addresses.configured() else target.seen_at + self._forget
        if now >= forget_at:
            self._drop(name)
            return (Forget(target.peer),) if target.peer else ()
        addresses = target.addresses.texts()
        dial_at = target.dial_at if addresses else inf  # without addresses wait for a sighting
        if now >= dial_at:
            target.dials = 1
            return (Dial(name, addresses, target.is_hearsay),)
        due = min(dial_at, forget_at)
        if due < target.queued_at:
            target.queued_at = due
            heappush(self._queue, (due, name))
        return ()
