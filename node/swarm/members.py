"""Membership as this node sees it now: each member, whether it is connected or suspect, and which keys it should hold.

`node/services/membership/neighbours.py` alone writes it; all other code reads. Which members should hold a key is
decided here and nowhere else (`wanted`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from math import inf

import trio

from node.store.members import Member
from node.swarm.reconciliation import Reconciliation
from protocols.messages import VIEW_BYTES
from protocols.placement import nearest

GONE_SECONDS = 60.0
"""A node that nobody was connected with for so long offers nothing any more. A member is remembered for much longer."""
STRANGERS_MAX = 4096
"""Nodes that are no members, and of which it is remembered when they gave a sign of life."""
WANTED_KEPT_MAX = 65536
"""Keys whose holders are cached."""


@dataclass(slots=True)
class Presence:
    """The state of one member. Times are seconds on trio's clock."""

    member: Member
    is_connected: bool = False
    is_kept: bool = True
    """Whether a connection with it is kept (`protocols/policy/connection_plan.py`)."""
    is_idle: bool = False
    """It is not connected because it need not be, and is dialled when it is wanted."""
    is_suspect: bool = False
    suspect_why: str = ""
    """Which deadline it missed when it became suspect."""
    caught_up_at: float | None = None
    """This node has all that the member had hints for up to then. Set by `Members.caught_up`; None: not known."""
    clock_offset_ms: float | None = None
    """How far its clock is ahead of this node's."""
    round_trip_seconds: float | None = None
    view: bytes = b""
    """What it said last of the members that it is connected with (`Members.view`); b'': nothing."""
    alive_at: float = -inf
    """When this node was connected with it last, or another member said that it is, or it announced itself; or when it
    was idle last, for nothing says that an idle member is away."""

    @property
    def is_answering(self) -> bool:
        """Whether it is connected and not suspect."""
        return self.is_connected and not self.is_suspect


class Members:
    """All members within the forgetting horizon. `own` is this node's peer id, which is never among them."""

    def __init__(
        self,
        own: str,
        *,
        replication: int,
        connections_kept: int = 1 << 16,
        members: Iterable[Member] = (),
        reconciliation: Reconciliation | None = None,
    ) -> None:
        self.own = own
        self.reconciliation = reconciliation or Reconciliation()
        """What this node must ask its peers for, because its store lost entries."""
        self.replication = replication
        self.connections_kept = connections_kept
        """With more members than that this node is not connected with all of them."""
        self.is_large = False
        """Whether there are more members than that."""
        self._presences: dict[str, Presence] = {m.peer: Presence(member=m) for m in members}
        self._strangers: dict[str, float] = {}
        """The `alive_at` of nodes that are no members, the latest last."""
        self._changed = trio.Event()
        self.replaced: frozenset[str] = frozenset()
        """The members that are gone for so long that others hold in their place. Set by `replace`."""
        self._wanted: dict[bytes, tuple[str, ...]] = {}
        """Results of `wanted`, until a member is added, forgotten or replaced."""
        self._caught_up_since: float | None = None
        """The result of `caught_up_since`; computed when needed."""
        self._is_computed = False
        self._view = b""
        """The result of `view`; b'': to be computed."""
        self._drop_computed()

    def __len__(self) -> int:
        return len(self._presences)

    def all(self) -> tuple[Presence, ...]:
        return tuple(self._presences.values())

    def get(self, peer: str) -> Presence | None:
        return self._presences.get(peer)

    def put(self, member: Member) -> Presence:
        """Add a member, or update what is known of it."""
        presence = self._presences.get(member.peer)
        if presence is None:
            presence = self._presences[member.peer] = Presence(member=member)
            self._drop_computed()
        presence.member = member
        self.notify_changed()
        return presence

    def forget(self, peer: str) -> None:
        self._presences.pop(peer, None)
        self._drop_computed()
        self.notify_changed()

    def note_alive(self, peer: str) -> None:
        """A node gave a sign of life, to this node or to a member."""
        if presence := self._presences.get(peer):
            presence.alive_at = trio.current_time()
            return
        self._strangers.pop(peer, None)
        self._strangers[peer] = trio.current_time()
        if len(self._strangers) > STRANGERS_MAX:
            del self._strangers[next(iter(self._strangers))]

    def is_gone(self, peer: str) -> bool:
        """Whether a node is away, here and for all others, and for longer than a restart takes."""
        if presence := self._presences.get(peer):
            alive_at = inf if presence.is_connected else presence.alive_at
        else:
            alive_at = self._strangers.get(peer, -inf)
        return trio.current_time() - alive_at > GONE_SECONDS

    def replace(self, gone: Iterable[str]) -> None:
        """These members are gone (`protocols/replication/absence.py`), and no other one: others hold in their place."""
        if (replaced := frozenset(gone)) != self.replaced:
            self.replaced = replaced
            self._drop_computed()
            self.notify_changed()

    def lacking(self, *, is_in_swarm: bool) -> str:
        """What the store of this node lacks, for people; ''. `is_in_swarm`: this node can ask others for it."""
        return self.reconciliation.in_words(others=len(self._presences) if is_in_swarm else 0)

    def view(self) -> bytes:
        """Stands for the set of the nodes that are connected, or could be, this one included: two nodes that are
        connected with the same ones, and with each other, have the same."""
        if not self._view:
            here = sorted([self.own, *(peer for peer, p in self._presences.items() if p.is_connected or p.is_idle)])
            self._view = sha256(" ".join(here).encode()).digest()[:VIEW_BYTES]
        return self._view

    def caught_up(self, presence: Presence, at: float) -> None:
        """This node has all that this member had hints for up to `at` (trio's clock)."""
        presence.caught_up_at = at
        self._is_computed = False

    def _drop_computed(self) -> None:
        self._wanted.clear()
        self._is_computed = False
        self.is_large = len(self._presences) > self.connections_kept

    def name_of(self, peer: str) -> str:
        """The name of a peer for people: the name it gave itself, else the end of its id."""
        presence = self._presences.get(peer)
        return (presence.member.name if presence else "") or peer[-8:]

    def is_reachable(self, peer: str) -> bool:
        """Whether a peer is worth a request: it is connected and not suspect, or can be dialled for it."""
        presence = self._presences.get(peer)
        return presence is not None and (presence.is_answering or presence.is_idle)

    def is_answering(self, peer: str) -> bool:
        """Whether a peer is connected and not suspect."""
        presence = self._presences.get(peer)
        return presence is not None and presence.is_answering

    def reachable_of(self, peers: Iterable[str]) -> list[str]:
        """Those of these peers that are worth a request, the connected ones first."""
        return sorted(filter(self.is_reachable, peers), key=lambda peer: self._presences[peer].is_idle)

    def reachable(self) -> tuple[str, ...]:
        """The members that are worth a request."""
        return tuple(filter(self.is_reachable, self._presences))

    def answering(self) -> tuple[str, ...]:
        """The members that are connected and not suspect."""
        return tuple(peer for peer, p in self._presences.items() if p.is_answering)

    def kept(self) -> tuple[str, ...]:
        """Those of them that a connection is kept with: what a node asks by itself must not prolong the others."""
        return tuple(peer for peer, p in self._presences.items() if p.is_kept and p.is_answering)

    def wanted(self, key: bytes) -> tuple[str, ...]:
        """The peers that should hold a key, nearest first: min(k, members that are not replaced). This node is not
        counted."""
        wanted = self._wanted.get(key)
        if wanted is None:
            if len(self._wanted) >= WANTED_KEPT_MAX:
                self._wanted.clear()
            live = [peer for peer in self._presences if peer not in self.replaced] if self.replaced else self._presences
            wanted = self._wanted[key] = nearest(key, live, self.replication)
        return wanted

    def deciding(self, key: bytes) -> tuple[str, ...]:
        """The wanted holders without a majority of which no key is absent: those that should hold it even when all
        members are back. One that holds in the place of a member that is gone may not have been given the key yet."""
        wanted = self.wanted(key)
        if not self.replaced or len(self._presences) <= self.replication:
            return wanted
        responsible = nearest(key, self._presences, self.replication)
        return tuple(peer for peer in wanted if peer in responsible)

    def is_responsible(self, key: bytes) -> bool:
        """Whether this node should hold a key, even when all members are back: it is among the k nearest of them.

        One that holds in the place of a member that is gone is not responsible: it may not have been given the key yet.
        With k other members or fewer, every node should hold every key.
        """
        if len(self._presences) <= self.replication:
            return True
        return self.own in nearest(key, (self.own, *self._presences), self.replication)

    def caught_up_since(self) -> float | None:
        """Since when (trio's clock) this node may lack a version that another member wrote, of those that count.

        Any member may write any key, so all count; of a large swarm only those that this node is connected with, and
        keeps a connection with. None when one has never reported its hints, or when there is no other member.
        """
        if not self._is_computed:
            counting = (p for p in self._presences.values() if not self.is_large or (p.is_kept and p.is_connected))
            self._caught_up_since = self._oldest(presence.caught_up_at for presence in counting)
            self._is_computed = True
        return self._caught_up_since

    def fresh_since(self, key: bytes) -> float | None:
        """`caught_up_since` for a key that this node itself should hold and need not ask for; None for any other. In a
        large swarm the other holders of the key count as well, whether they are connected or not."""
        if self.reconciliation.why and self.reconciliation.must_ask(key):
            return None
        if len(self._presences) > self.replication and not self.is_responsible(key):
            return None
        since = self._caught_up_since if self._is_computed else self.caught_up_since()
        return since if since is None or not self.is_large else self._with_holders(key, since)

    def _with_holders(self, key: bytes, since: float) -> float | None:
        return self._oldest((since, *(self._presences[peer].caught_up_at for peer in self.wanted(key))))

    def age_seconds(self, key: bytes | None = None) -> float | None:
        """The greatest age of what this node holds (of a key that it lost nothing of); None when that is not known."""
        if key is not None and self.reconciliation.must_ask(key):
            return None
        since = self.caught_up_since()
        if since is not None and key is not None and self.is_large:
            since = self._with_holders(key, since)
        return None if since is None else max(0.0, trio.current_time() - since)

    @staticmethod
    def _oldest(times: Iterable[float | None]) -> float | None:
        oldest: float | None = None
        for at in times:
            if at is None:
                return None
            oldest = at if oldest is None else min(oldest, at)
        return oldest

    def notify_changed(self) -> None:
        """Wake all that wait in `changed`."""
        self._view = b""
        if self.is_large:  # other members count now
            self._is_computed = False
        self._changed.set()
        self._changed = trio.Event()

    async def changed(self) -> None:
        """Wait until a member is added, forgotten, connected, disconnected, suspect or trusted again."""
        await self._changed.wait()
