"""The members of the swarm as this node sees them now: who they are, who is here, who is suspect, who holds what.

One object, written by `node/services/membership/neighbours.py` alone and read by all other parts. 'Who should hold
this key' is asked here and nowhere else (`wanted`).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import trio

from node.store.members import Member
from protocols.placement import nearest

WANTED_KEPT_MAX = 65536
"""Keys whose holders are kept worked out."""


@dataclass(slots=True)
class Presence:
    """What is known of one member. Times are trio's clock in seconds."""

    member: Member
    is_connected: bool = False
    is_suspect: bool = False
    suspect_why: str = ""
    """What it missed when it became suspect."""
    clean_at: float | None = None
    """We have all that it owed us up to then. Set by `Members.is_clean`."""
    clock_offset_ms: float | None = None
    """How far its clock is ahead of ours."""
    round_trip_seconds: float | None = None


class Members:
    """All members within the forgetting horizon. `own` is this node, which is never among them."""

    def __init__(self, own: str, *, replication: int, members: Iterable[Member] = ()) -> None:
        self.own = own
        self.replication = replication
        self._presences: dict[str, Presence] = {m.peer: Presence(member=m) for m in members}
        self._changed = trio.Event()
        self._wanted: dict[bytes, tuple[str, ...]] = {}
        """What `wanted` answered, until a member comes or goes."""
        self._floor: float | None = None
        self._is_floor_known = False

    def __len__(self) -> int:
        return len(self._presences)

    def all(self) -> tuple[Presence, ...]:
        return tuple(self._presences.values())

    def get(self, peer: str) -> Presence | None:
        return self._presences.get(peer)

    def put(self, member: Member) -> Presence:
        """A member is new, or something about it is."""
        presence = self._presences.get(member.peer)
        if presence is None:
            presence = self._presences[member.peer] = Presence(member=member)
            self._unlearn()
        presence.member = member
        self.say_changed()
        return presence

    def forget(self, peer: str) -> None:
        self._presences.pop(peer, None)
        self._unlearn()
        self.say_changed()

    def is_clean(self, presence: Presence, at: float) -> None:
        """We have all that this member owed us up to `at` (trio's clock)."""
        presence.clean_at = at
        self._is_floor_known = False

    def _unlearn(self) -> None:
        self._wanted.clear()
        self._is_floor_known = False

    def name_of(self, peer: str) -> str:
        """What a person calls a peer: the name it gave itself, else the end of its id."""
        presence = self._presences.get(peer)
        return (presence.member.name if presence else "") or peer[-8:]

    def is_reachable(self, peer: str) -> bool:
        """Connected, and not under suspicion: worth asking."""
        presence = self._presences.get(peer)
        return presence is not None and presence.is_connected and not presence.is_suspect

    def reachable(self) -> tuple[str, ...]:
        return tuple(peer for peer, p in self._presences.items() if p.is_connected and not p.is_suspect)

    def wanted(self, key: bytes) -> tuple[str, ...]:
        """The peers that should hold a key, nearest first: min(k, members known); this node is not counted."""
        wanted = self._wanted.get(key)
        if wanted is None:
            if len(self._wanted) >= WANTED_KEPT_MAX:
                self._wanted.clear()
            wanted = self._wanted[key] = nearest(key, self._presences, self.replication)
        return wanted

    def is_responsible(self, key: bytes) -> bool:
        """Whether whoever writes this key hands it to this node: it is among the k nearest of all.

        With k others or fewer every one of them is handed everything.
        """
        if len(self._presences) <= self.replication:
            return True
        return self.own in nearest(key, (self.own, *self._presences), self.replication)

    def clean_since(self, key: bytes) -> float | None:
        """Since when, on trio's clock, we may lack something that another holder of a key wrote.

        None when one of them was never heard, or when there is no other holder.
        """
        if self._is_floor_known:
            return self._floor
        if len(self._presences) > self.replication:
            return self._oldest(self._presences[peer].clean_at for peer in self.wanted(key))
        self._floor = self._oldest(presence.clean_at for presence in self._presences.values())
        self._is_floor_known = True  # everybody holds everything: one answer for all keys
        return self._floor

    def fresh_since(self, key: bytes) -> float | None:
        """`clean_since`, for a key that this node itself should hold; None for another."""
        if self._is_floor_known:
            return self._floor
        return self.clean_since(key) if self.is_responsible(key) else None

    def age_seconds(self, key: bytes) -> float | None:
        """How old, at the most, what we hold of a key is; None when that is not known."""
        since = self.clean_since(key)
        return None if since is None else max(0.0, trio.current_time() - since)

    @staticmethod
    def _oldest(times: Iterable[float | None]) -> float | None:
        oldest: float | None = None
        for at in times:
            if at is None:
                return None
            oldest = at if oldest is None else min(oldest, at)
        return oldest

    def say_changed(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def changed(self) -> None:
        """Wait until a member is new, gone, connected, disconnected, suspected or trusted again."""
        await self._changed.wait()
