"""Reconciliation: which keys a node whose store lost entries must ask its peers for, before it answers for them alone.

What was lost was acknowledged to others, or written by this node itself, so most of it is in nobody's hints for this
node. A key counts as reconciled once every other holder of it was asked for its heads. So does a key that this node
learns of only later: others may have had versions of it all the time. `node/services/membership/log_continuity.py`
finds the loss, `node/services/reads/reconciler.py` asks for each key in the store.
"""

import trio

LOST_MARK = "lost"
"""The mark in the store that says what was lost;"""
RECONCILED_MARK = "reconciled"
"""and the one with the sequence up to which all keys of the log were asked for since."""
ASKED_MAX = 1 << 18
"""Keys that are remembered as asked for, of 49 bytes each; reads of further ones ask each time."""


class Reconciliation:
    """`why` says in words what was lost, '' when nothing is known to be lost. A later start goes on with it, and with
    the sequence up to which the keys of the log are reconciled (0: they were never all)."""

    def __init__(self, why: str = "", until: int = 0) -> None:
        self.why = why
        self.until = until
        self.round = 0
        """How often it was begun."""
        self.last_asked = b""
        """The key for which all holders answered last."""
        self._asked: set[bytes] = set()
        self._begun = trio.Event()

    def begin(self, why: str) -> None:
        """Entries were lost: from now on every key must be asked for."""
        self.why, self.until = why, 0
        self.round += 1
        self.last_asked = b""
        self._asked.clear()
        self._begun.set()
        self._begun = trio.Event()

    def must_ask(self, key: bytes) -> bool:
        """Whether an answer from this node's store alone may lack what other holders have."""
        return bool(self.why) and key not in self._asked

    def asked(self, key: bytes) -> None:
        """Every other holder of this key told its heads, and these are in the store."""
        if self.why:
            self.last_asked = key
            if len(self._asked) < ASKED_MAX:
                self._asked.add(key)

    def in_words(self) -> str:
        """What was lost and what that means, for people; '' when nothing was, or when all keys are reconciled."""
        if not self.why or self.until:
            return ""
        return (
            f"{self.why}. Each address is asked for at its other holders before this node answers for it alone; "
            f"{len(self._asked)} have been"
        )

    async def begun(self) -> None:
        """Wait until a reconciliation is under way."""
        while not self.why:
            await self._begun.wait()
