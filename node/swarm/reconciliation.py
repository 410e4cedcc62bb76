"""Reconciliation: which keys a node whose store lost entries, or may have, must ask for before it relies on its store.

What was lost was acknowledged to others, or written by this node itself, so most of it is in nobody's hints for this
node. A key counts as reconciled once every other holder of it was asked for its heads. So does a key that this node
learns of only later: others may have had versions of it all the time. `node/services/membership/log_continuity.py`
finds the loss, `node/services/reads/reconciler.py` asks for each key in the store.

A start that does not go on where the last run ended in order (`node/store/marks.py`) may follow a loss that no member
has told yet. Until they have, keys are asked for as after a loss, and nothing else is done.
"""

from collections.abc import Iterable
from math import inf

import trio

ASKED_MAX = 1 << 18
"""Keys that are remembered as asked for, of 49 bytes each; reads of further ones ask each time."""
AWAY_SECONDS = 5.0
"""A remembered member that has not come so long after the first one is away, and is not waited for."""


class Reconciliation:
    """`why` says in words what was lost, '' when nothing is known to be lost. A later start goes on with it, and with
    the sequence up to which the keys of the log are reconciled (0: they were never all). `is_new`: it was found since
    this start.

    `unheard` are the members that have yet to say whether this store lacks entries; none, when it cannot.
    """

    def __init__(self, why: str = "", until: int = 0, *, is_new: bool = False, unheard: Iterable[str] = ()) -> None:
        self.why = why
        self.until = until
        self._is_new = is_new
        self.round = 0
        """How often it was begun."""
        self.last_asked = b""
        """The key for which all holders answered last."""
        self._unheard = set(unheard)
        self._unheard_until = inf
        """Until when those that were not heard are waited for, on trio's clock."""
        self._asked: set[bytes] = set()
        self._begun = trio.Event()
        self._first_heard = trio.Event()

    def begin(self, why: str) -> None:
        """Entries were lost: from now on every key must be asked for. The first reason stays until that was done."""
        if not self.why or self.until:
            self.why = why
        self.until, self._is_new = 0, True
        self.round += 1
        self.last_asked = b""
        self._asked.clear()
        self._begun.set()
        self._begun = trio.Event()

    def heard(self, peer: str) -> bool:
        """A member said which entry of this node's log it knows, or was forgotten, and `begin` was called before if it
        knows one that is lost. Returns whether it was the last one that had to be heard."""
        if not self._unheard:
            return False
        self._unheard.discard(peer)
        self._first_heard.set()
        self._unheard_until = min(self._unheard_until, trio.current_time() + AWAY_SECONDS)
        return not self._unheard

    async def first_heard(self) -> None:
        """Wait until one of the members that have to be heard was; return at once when there is none."""
        if self._unheard:
            await self._first_heard.wait()

    def must_ask(self, key: bytes) -> bool:
        """Whether this node's store alone may lack what other holders have."""
        return (bool(self.why) or self._may_follow_a_loss()) and key not in self._asked

    def _may_follow_a_loss(self) -> bool:
        return bool(self._unheard) and trio.current_time() < self._unheard_until

    def why_ask(self) -> str:
        """Why keys must be asked for, in words."""
        return self.why or (
            "this node was not ended in order, or its data directory was replaced since, and not every member has said "
            "yet that nothing is missing here"
        )

    def asked(self, key: bytes) -> None:
        """Every other holder of this key told its heads, and these are in the store."""
        if self.why or self._unheard:
            self.last_asked = key
            if len(self._asked) < ASKED_MAX:
                self._asked.add(key)

    def in_words(self, *, others: int) -> str:
        """What was lost and what that means, for people, in a swarm of so many others; '' when nothing was, or when all
        keys are reconciled. Where there is no other to ask, it is said until the next start."""
        if not self.why or self.until:
            return ""
        if not others:
            return self.why if self._is_new else ""
        return (
            f"{self.why}. Each address is asked for at its other holders before this node answers for it alone; "
            f"{len(self._asked)} have been"
        )

    async def begun(self) -> None:
        """Wait until a reconciliation is under way."""
        while not self.why:
            await self._begun.wait()
