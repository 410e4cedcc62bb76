"""Reconciler: after a loss, asks the other holders for the heads of every key in the store.

It goes through the log, from its first entry to its last, and asks for each key once. It goes on only while every
member is heard and has no hints for this node: so that what the members owe is in the log before its end is reached.
Then the store is as good as any other holder's, and only keys that are new to it are asked for. It is slow on purpose:
reads and writes ask for the keys that they need first.
"""

import logging

import trio

from node.dht.base import Consistency
from node.dht.dispatch import DispatchDHT
from node.store.base import Store
from node.store.marks import RECONCILED_MARK
from node.swarm.members import Members
from protocols.errors import BzzzError

log = logging.getLogger(__name__)

PAGE = 500
PAUSE_SECONDS = 0.005
"""Between two keys: at most two hundred a second."""
AGAIN_SECONDS = 1.0
"""Until a key is asked for again, or members are looked at again."""
CAUGHT_UP_SECONDS = 5.0
"""Members must have said so recently that they have no hints for this node."""
TIMEOUT_SECONDS = 2.0


class Reconciler:
    """Of one node. It does nothing while nothing was lost."""

    def __init__(self, store: Store, dht: DispatchDHT, members: Members) -> None:
        self._store = store
        self._dht = dht
        self._members = members
        self._reconciliation = members.reconciliation

    async def run(self) -> None:
        """Reconcile whenever something was lost, until cancelled."""
        while True:
            await self._reconciliation.begun()
            try:
                await self._go_through_log()
            except BzzzError as error:
                log.warning("the store cannot be compared with other holders' now: %s", error.message)
                await trio.sleep(AGAIN_SECONDS)

    async def _go_through_log(self) -> None:
        """From the first entry on, until another reconciliation has begun."""
        reconciliation, after = self._reconciliation, 0
        current = reconciliation.round
        while current == reconciliation.round:
            if after >= reconciliation.until:
                await self._caught_up()
            changes = await self._store.log(after=after, limit=PAGE)
            for change in changes:
                if change.sequence <= reconciliation.until:
                    reconciliation.asked(change.key)  # in an earlier run
                else:
                    await self._ask(change.key, current)
                after = change.sequence
            if not changes and current == reconciliation.round:
                self._save(after)
                with trio.move_on_after(AGAIN_SECONDS):  # then look whether another reconciliation has begun
                    await self._store.wait_until_grown(after)

    def _save(self, until: int) -> None:
        """All keys of the log are reconciled, up to this entry."""
        if until and not self._reconciliation.until:
            log.warning("all addresses in the store were asked for at their other holders: it lacks nothing any more")
        if until > self._reconciliation.until:
            self._reconciliation.until = until
            self._store.set_mark(RECONCILED_MARK, str(until))

    async def _ask(self, key: bytes, current: int) -> None:
        """Ask for a key until all its other holders have answered, or another reconciliation has begun."""
        reconciliation = self._reconciliation
        while current == reconciliation.round and reconciliation.must_ask(key) and self._members.is_responsible(key):
            await self._caught_up()
            try:
                await self._dht.get(key, consistency=Consistency.SWARM, timeout=TIMEOUT_SECONDS)
            except BzzzError as error:
                log.debug("a key could not be reconciled now: %s", error.message)
            if reconciliation.last_asked == key:
                await trio.sleep(PAUSE_SECONDS)
                return
            await trio.sleep(AGAIN_SECONDS)

    async def _caught_up(self) -> None:
        """Wait until every member is heard and has no hints for this node."""
        while (age := self._members.age_seconds()) is None or age > CAUGHT_UP_SECONDS or not self._dht.asks_swarm:
            await trio.sleep(AGAIN_SECONDS)
