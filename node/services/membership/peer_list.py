"""Peer list: all that this node knows of each other node, in one entry: for people, and for the API.

It puts together the picture (`protocols/policy/peers.py`), the members, and whom the peer policy refuses.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import trio

from node.store.base import Store
from node.swarm.members import Members, Presence
from node.swarm.peer_policy import PeerPolicy
from protocols.policy.peer_events import KnownPeer


class PeerState(StrEnum):
    CONNECTED = "connected"
    SUSPECT = "suspect"
    """Connected, and it missed a deadline."""
    IDLE = "idle"
    """A member that no connection is kept with, because the swarm is large; it is dialled when it is wanted."""
    KNOWN = "known"
    """Not connected; it is dialled."""
    REFUSED = "refused"
    """Never dialled, and disconnected when it comes: of another swarm, on the deny list, or banned for a while."""


_ORDER = {state: number for number, state in enumerate(PeerState)}


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerAddress:
    address: str
    sources: tuple[str, ...]
    age_ms: float
    """Since it was reported, or worked, last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerStatus:
    """One other node. `peer` is '' for an address whose peer is not known yet."""

    peer: str
    name: str
    state: PeerState
    is_member: bool
    """It said hello within the forgetting horizon."""
    sources: tuple[tuple[str, float], ...]
    """Who reported it, with the milliseconds since the last report of each, the latest first."""
    addresses: tuple[PeerAddress, ...]
    """The best ones first."""
    last_seen_ms: int
    """0: never."""
    hints: int
    """Writes of this node that it does not have yet."""
    clock_offset_ms: float | None
    """How far its clock is ahead of this node's."""
    round_trip_ms: float | None
    agent: str
    capabilities: tuple[str, ...]
    last_error: str
    """Why it is refused or suspect, or why the last dial or connection failed; ''."""

    @property
    def is_connected(self) -> bool:
        return self.state in (PeerState.CONNECTED, PeerState.SUSPECT)

    @property
    def is_suspect(self) -> bool:
        return self.state is PeerState.SUSPECT


class PeerList:
    """`picture` gives every peer that is known, with times on trio's clock."""

    def __init__(
        self,
        members: Members,
        store: Store,
        peer_policy: PeerPolicy,
        *,
        picture: Callable[[], list[KnownPeer]],
        now_ms: Callable[[], int],
    ) -> None:
        self._members = members
        self._store = store
        self._peer_policy = peer_policy
        self._picture = picture
        self._now_ms = now_ms

    def all(self) -> list[PeerStatus]:
        """Every other node once: the connected ones first, then the members, then the others."""
        return self.page(after=0, limit=None)[0]

    def page(self, *, after: int, limit: int | None) -> tuple[list[PeerStatus], int]:
        """So many of them, without the first `after`; and how many there are."""
        known = {peer.peer or peer.addresses[0].text: peer for peer in self._picture() if peer.peer or peer.addresses}
        known = {name: peer for name, peer in known.items() if self._is_shown(peer)}
        names = dict.fromkeys((*(p.member.peer for p in self._members.all()), *known))
        ordered = sorted(names, key=lambda name: self._place(name, known.get(name)))
        page = ordered[after:] if limit is None else ordered[after : after + limit]
        hints = self._store.hint_counts()
        return [self._status(name, known.get(name), hints.get(name, 0)) for name in page], len(ordered)

    def _place(self, name: str, known: KnownPeer | None) -> tuple[int, bool, str, str]:
        presence = self._members.get(name)
        return _ORDER[self._state(name, known)[0]], presence is None, _name(presence, known), name

    def _is_shown(self, peer: KnownPeer) -> bool:
        return bool(peer.addresses or peer.refused or peer.is_connected or self._members.get(peer.peer))

    def _status(self, name: str, known: KnownPeer | None, hints: int) -> PeerStatus:
        presence = self._members.get(name)
        state, refused = self._state(name, known)
        round_trip = presence.round_trip_seconds if presence else None
        return PeerStatus(
            peer=presence.member.peer if presence else known.peer if known else "",
            name=_name(presence, known),
            state=state,
            is_member=presence is not None,
            sources=tuple((source.value, _age_ms(at)) for source, at in known.sources) if known else (),
            addresses=_addresses(presence, known),
            last_seen_ms=self._last_seen_ms(state, presence, known),
            hints=hints,
            clock_offset_ms=presence.clock_offset_ms if presence else None,
            round_trip_ms=None if round_trip is None else round_trip * 1000.0,
            agent=known.agent if known else "",
            capabilities=known.capabilities if known else (),
            last_error=refused or _last_error(state, presence, known),
        )

    def _state(self, name: str, known: KnownPeer | None) -> tuple[PeerState, str]:
        """The state of a node, and why it is refused, or ''."""
        presence = self._members.get(name)
        is_peer = presence is not None or (known is not None and bool(known.peer))
        refused = (known.refused if known else "") or (self._peer_policy.complaint(name) if is_peer else "")
        return _state(presence, refused), refused

    def _last_seen_ms(self, state: PeerState, presence: Presence | None, known: KnownPeer | None) -> int:
        if state is PeerState.CONNECTED:
            return self._now_ms()
        seen_at = known.seen_at if known else None
        by_connection = 0 if seen_at is None else self._now_ms() - int(_age_ms(seen_at))
        return max(by_connection, presence.member.last_seen_ms if presence else 0)


def _age_ms(at: float) -> float:
    return max(0.0, trio.current_time() - at) * 1000.0


def _name(presence: Presence | None, known: KnownPeer | None) -> str:
    return (presence.member.name if presence else "") or (known.name if known else "")


def _state(presence: Presence | None, refused: str) -> PeerState:
    if presence is not None and presence.is_connected:
        return PeerState.SUSPECT if presence.is_suspect else PeerState.CONNECTED
    if refused:
        return PeerState.REFUSED
    return PeerState.IDLE if presence is not None and presence.is_idle else PeerState.KNOWN


def _addresses(presence: Presence | None, known: KnownPeer | None) -> tuple[PeerAddress, ...]:
    if known is None:
        addresses = presence.member.addresses if presence else ()
        return tuple(PeerAddress(address=address, sources=("store",), age_ms=0.0) for address in addresses)
    return tuple(
        PeerAddress(address=each.text, sources=tuple(sorted(each.sources)), age_ms=_age_ms(each.seen_at))
        for each in known.addresses
    )


def _last_error(state: PeerState, presence: Presence | None, known: KnownPeer | None) -> str:
    if state is PeerState.SUSPECT and presence is not None:
        return presence.suspect_why
    return known.why if known and state is PeerState.KNOWN else ""
