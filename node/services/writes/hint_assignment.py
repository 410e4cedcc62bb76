"""Hint assignment: adds and moves hints when members come and go, which no write could do.

A member gets hints for every write of this node that it should hold, also for those from before this node knew it: so
a node that wrote while it was alone hands its writes to the first peer that joins. When a member is forgotten, its
hints are given to the members that hold in its place. When it is gone for longer than a grace, these get hints too, and
its own hints are kept for its return. A cursor for each member says how far the node's own writes were
looked through for it; it is deleted with the member, and one that comes back starts from the beginning.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import trio

from node.store.base import Store
from node.store.members import Member
from node.swarm.members import Members
from protocols.errors import BzzzError

log = logging.getLogger(__name__)

PAGE = 500
KEYS_AT_ONCE = 10
"""Keys whose holders are found before other tasks get their turn."""
AGAIN_SECONDS = 5.0
ANY_TIME_MS = 1 << 62
_CURSORS = "owed/"
"""Before the names of the cursors, as it is on the disks of earlier versions."""


@dataclass(slots=True)
class _Passes:
    """When the own writes were looked through for a member, since it was first seen."""

    first_seen_ms: int
    times: list[float] = field(default_factory=list)

    def is_idle(self, now: float) -> bool:
        """Whether no further pass is due now: two are made, at least `AGAIN_SECONDS` apart."""
        if not self.times:
            return False
        return now - self.times[0] < AGAIN_SECONDS or self.times[-1] - self.times[0] >= AGAIN_SECONDS


class HintAssignment:
    """`on_hints_added` is called with a holder that has more hints, `on_forgotten` with one that has none any more."""

    def __init__(
        self,
        store: Store,
        members: Members,
        *,
        on_hints_added: Callable[[str], None],
        on_forgotten: Callable[[str], None],
    ) -> None:
        self._store = store
        self._members = members
        self._on_hints_added = on_hints_added
        self._on_forgotten = on_forgotten
        self._passes: dict[str, _Passes] = {}
        self._replaced: frozenset[str] = frozenset()
        """The members in whose place others have hints."""

    async def run(self) -> None:
        """Look after every change of the members, and every `AGAIN_SECONDS`, until cancelled.

        A write that was being made while a member came may have missed both its own list of holders and the first
        pass: so a second pass is made later for every new member, when any such write is in the store.
        """
        while True:
            for peer in [peer for peer in self._store.hint_totals() if self._members.get(peer) is None]:
                await self._try(self._reassign(peer), peer)
            if self._replaced != self._members.replaced:
                await self._try(
                    self._follow_replaced(self._members.replaced), "those that hold for a member that is gone"
                )
            for member in [p.member for p in self._members.all() if p.member.peer not in self._replaced]:
                passes = self._passes.get(member.peer)
                if passes is None or passes.first_seen_ms != member.first_seen_ms:
                    passes = self._passes[member.peer] = _Passes(member.first_seen_ms)
                if not passes.is_idle(trio.current_time()) and await self._try(self._assign(member), member.peer):
                    passes.times.append(trio.current_time())
            for peer in [peer for peer in self._passes if self._members.get(peer) is None]:
                del self._passes[peer]
            cursors = {_cursor_of(presence.member) for presence in self._members.all()}
            for name in self._store.cursor_names(_CURSORS):
                if name not in cursors:
                    await self._store.drop_cursor(name)
            with trio.move_on_after(AGAIN_SECONDS):
                await self._members.changed()

    def has_assigned(self, peer: str) -> bool:
        """Whether a member has hints for all own writes that it should hold: they were looked through for it."""
        passes, presence = self._passes.get(peer), self._members.get(peer)
        if peer in self._replaced or peer in self._members.replaced:
            return False
        if passes is None or presence is None or passes.first_seen_ms != presence.member.first_seen_ms:
            return False
        return bool(passes.times)

    async def _try(self, task: Awaitable[None], peer: str) -> bool:
        try:
            await task
        except BzzzError as error:
            log.warning("the hints for %s could not be stored yet: %s", peer, error.message)
            return False
        return True

    async def _follow_replaced(self, replaced: frozenset[str]) -> None:
        """Other members are gone than before. Those that hold in their place get hints for all own writes, and one that
        is back gets hints for what was written meanwhile."""
        if replaced - self._replaced:
            after = 0
            while changes := await self._store.local_writes(after=after, limit=PAGE):
                await self._assign_to_others([(change.sequence, change.key) for change in changes])
                after = changes[-1].sequence
        for peer in self._replaced - replaced:
            self._passes.pop(peer, None)
        self._replaced = replaced

    async def _assign(self, member: Member) -> None:
        """Add hints for the own writes that this member should hold, from its cursor on."""
        await self._store.settled()  # also for writes under way whose author did not know this member yet
        after = await self._store.cursor(_cursor_of(member))
        while changes := await self._store.local_writes(after=after, limit=PAGE):
            hints = [
                (sequence, holder)
                for sequence, holder in await self._wanted([(change.sequence, change.key) for change in changes])
                if holder == member.peer
            ]
            if hints and await self._store.add_hints(hints):
                self._on_hints_added(member.peer)
            after = changes[-1].sequence
            await self._store.set_cursor(_cursor_of(member), after)

    async def _reassign(self, peer: str) -> None:
        """A member was forgotten. Other holders get its hints before these are dropped, so that nothing is lost when
        a step fails: then all of it is done again."""
        reassigned: set[int] = set()
        after = 0
        while hints := await self._store.due_hints(peer, after=after, limit=PAGE, now_ms=ANY_TIME_MS):
            await self._assign_to_others([(hint.sequence, hint.key) for hint in hints])
            reassigned.update(hint.sequence for hint in hints)
            after = hints[-1].sequence
        for sequence in await self._store.drop_holder(peer):
            if sequence not in reassigned and (standing := await self._store.standing(sequence=sequence)):
                written = await self._store.by_digest(standing.digest)
                await self._assign_to_others([(sequence, written.key)] if written else [])
        self._on_forgotten(peer)

    async def _assign_to_others(self, writes: list[tuple[int, bytes]]) -> None:
        hints = await self._wanted(writes)
        if hints and await self._store.add_hints(hints):
            for holder in dict.fromkeys(holder for _, holder in hints):
                self._on_hints_added(holder)

    async def _wanted(self, writes: Sequence[tuple[int, bytes]]) -> list[tuple[int, str]]:
        """The wanted holders of these writes. Among thousands of members each takes a millisecond to find."""
        found: list[tuple[int, str]] = []
        for number, (sequence, key) in enumerate(writes, start=1):
            found += [(sequence, holder) for holder in self._members.wanted(key)]
            if number % KEYS_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
        return found


def _cursor_of(member: Member) -> str:
    return f"{_CURSORS}{member.peer}/{member.first_seen_ms}"
