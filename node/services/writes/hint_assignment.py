"""Who is owed what, when members come and go: the hints that no write could make.

Whoever is a member is owed every write of this node that it should hold, also what was written before we met: so what
was written alone reaches the first peer that comes. When a member is forgotten, those who hold in its place are owed
what it still was. Each member has a cursor over this node's own writes; one that was forgotten and comes again starts
from the beginning.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio

from node.store.base import Store
from node.store.members import Member
from node.swarm.members import Members
from protocols.errors import BzzzError

log = logging.getLogger(__name__)

PAGE = 500
AGAIN_SECONDS = 5.0
ANY_TIME_MS = 1 << 62


@dataclass(slots=True)
class _Sweep:
    """When a member was swept, since it was first seen."""

    first_seen_ms: int
    at: list[float] = field(default_factory=list)

    def is_over(self, now: float) -> bool:
        return bool(self.at) and (now - self.at[0] < AGAIN_SECONDS or self.at[-1] - self.at[0] >= AGAIN_SECONDS)


class HintAssignment:
    """`on_owed` is told who is owed more than before, `on_forgotten` who is owed nothing any more."""

    def __init__(
        self,
        store: Store,
        members: Members,
        *,
        on_owed: Callable[[str], None],
        on_forgotten: Callable[[str], None],
    ) -> None:
        self._store = store
        self._members = members
        self._on_owed = on_owed
        self._on_forgotten = on_forgotten
        self._swept: dict[str, _Sweep] = {}

    async def run(self) -> None:
        """Look after every change of the members, and every `AGAIN_SECONDS`, until cancelled.

        A write that was being made while a member came may have missed both its own list of holders and the first
        sweep: so every new member is swept again a while later, when any such write is in the store.
        """
        while True:
            for peer in [peer for peer in self._store.hint_counts() if self._members.get(peer) is None]:
                await self._guarded(self._release(peer), peer)
            for member in [presence.member for presence in self._members.all()]:
                swept = self._swept.get(member.peer)
                if swept is None or swept.first_seen_ms != member.first_seen_ms:
                    swept = self._swept[member.peer] = _Sweep(member.first_seen_ms)
                if not swept.is_over(trio.current_time()) and await self._guarded(self._sweep(member), member.peer):
                    swept.at.append(trio.current_time())
            for peer in [peer for peer in self._swept if self._members.get(peer) is None]:
                del self._swept[peer]
            with trio.move_on_after(AGAIN_SECONDS):
                await self._members.changed()

    async def _guarded(self, task: Awaitable[None], peer: str) -> bool:
        try:
            await task
        except BzzzError as error:
            log.warning("what %s is owed could not be written down yet: %s", peer, error.message)
            return False
        return True

    async def _sweep(self, member: Member) -> None:
        await self._store.settled()  # also the writes of those who did not know this member yet
        name = f"owed/{member.peer}/{member.first_seen_ms}"
        after = await self._store.cursor(name)
        while changes := await self._store.local_writes(after=after, limit=PAGE):
            debts = [(c.sequence, member.peer) for c in changes if member.peer in self._members.wanted(c.key)]
            if debts and await self._store.add_hints(debts):
                self._on_owed(member.peer)
            after = changes[-1].sequence
            await self._store.set_cursor(name, after)

    async def _release(self, peer: str) -> None:
        """A member was forgotten. Others are owed first, and only then it is not: what fails between is done again."""
        owed: set[int] = set()
        after = 0
        while hints := await self._store.due_hints(peer, after=after, limit=PAGE, now_ms=ANY_TIME_MS):
            await self._owe_others([(hint.sequence, hint.key) for hint in hints])
            owed.update(hint.sequence for hint in hints)
            after = hints[-1].sequence
        for sequence in await self._store.drop_holder(peer):
            if sequence not in owed and (standing := await self._store.standing(sequence=sequence)):
                written = await self._store.by_digest(standing.digest)
                await self._owe_others([(sequence, written.key)] if written else [])
        self._on_forgotten(peer)

    async def _owe_others(self, writes: list[tuple[int, bytes]]) -> None:
        debts = [(sequence, holder) for sequence, key in writes for holder in self._members.wanted(key)]
        if debts and await self._store.add_hints(debts):
            for holder in dict.fromkeys(holder for _, holder in debts):
                self._on_owed(holder)
