"""Log continuity: judges at the start and at each hello whether a log goes on where it ended, a peer's or this node's.

A peer whose log lacks what this node knows of it (`log_positions.py`) gets hints again for all that it had
acknowledged. When a peer knows an entry of this node's own log that is not in the store, this node lost entries: it
answers for no address alone until that one was asked for at the other holders (`node/swarm/reconciliation.py`), and
says so. So it does when its audit log names a run that the store does not know.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from math import inf

import trio

from node.services.membership.log_positions import LogPositions, Loss
from node.store.base import Store
from node.store.marks import RECONCILED_MARK, UNPROVED_MARK, of_loss
from node.swarm.members import Members
from node.swarm.reconciliation import Reconciliation
from protocols.errors import BzzzError
from protocols.log_lineage import SENT_MAX, LogPosition, includes
from protocols.messages import Hello

log = logging.getLogger(__name__)

PAUSE_SECONDS = 10.0
"""A peer that comes with another log again and again, or with other words about this one, costs work once in that."""


class LogContinuity:
    """Of one node. It writes into `Members` from when on a member gets hints for all writes."""

    def __init__(self, store: Store, members: Members, *, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._members = members
        self._now_ms = now_ms
        self._positions = LogPositions(store)
        self._reported: dict[str, LogPosition] = {}
        """By peer: the entry that it knows and this store lacks. It says so with each hello for a while."""
        self._pauses: dict[tuple[str, str], float] = {}
        """By peer and what it did: until when that costs no further work."""

    @property
    def log_id(self) -> str:
        return self._store.log_id

    def hello_fields(self, peer: str) -> tuple[tuple[LogPosition, ...], LogPosition | None, tuple[str, ...]]:
        """The last fields of a hello to a peer: `former_logs`, `known_log` and `twin`."""
        return self._store.former_logs[-SENT_MAX:], self._positions.known(peer), self.twin_of(peer)

    async def run(self) -> None:
        """Make hints again for what peers lost, until cancelled."""
        while True:
            loss = await self._positions.next_loss()
            if self._is_pausing(loss.peer, "lost"):
                self._positions.not_mended(loss)
                continue
            try:
                await self._add_hints_again(loss)
            except BzzzError as error:
                self._positions.not_mended(loss)
                log.warning("there can be no hints now for what %s lost: %s", loss.peer, error.message)

    def greeted(self, peer: str, hello: Hello) -> None:
        """A peer of this swarm said hello."""
        address = next((each for each in hello.addresses if each.endswith(f"/p2p/{peer}")), "")
        self._positions.greeted(peer, hello.log_id, hello.former_logs, address, trio.current_time())
        if (known := hello.known_log) is not None:
            self._judge_own(peer, hello.name or peer, known)
        self._heard_of_own(peer)

    def _heard_of_own(self, peer: str) -> None:
        """This member needs not be waited for any more before the store is taken as whole."""
        if self._members.reconciliation.heard(peer):
            self._store.set_mark(UNPROVED_MARK, "")

    def heard(self, peer: str, sequence: int) -> None:
        """A peer told the sequence of the last entry of its log."""
        self._positions.heard(peer, sequence, trio.current_time())

    def has_lost(self, peer: str) -> bool:
        """Whether a peer lacks what it acknowledged, and has no hints for it again yet."""
        return self._positions.has_lost(peer)

    def twin_of(self, peer: str) -> tuple[str, ...]:
        """The log and the address of another node that runs with this peer's identity; () when none was seen."""
        return self._positions.twin_of(peer, trio.current_time()) or ()

    def forget(self, peer: str) -> None:
        """A peer is no member any more."""
        self._positions.forget(peer)
        self._heard_of_own(peer)
        self._reported.pop(peer, None)
        for what in ("lost", "entry"):
            self._pauses.pop((peer, what), None)

    def _judge_own(self, peer: str, name: str, known: LogPosition) -> None:
        store = self._store
        if includes(store.log_id, store.former_logs, known) or self._reported.get(peer) == known:
            return
        self._reported[peer] = known
        why = (
            f"{name} knows entry {known.sequence} of this node's log {known.log_id}, which is not in this store: its "
            "data directory was replaced by an older copy, or lost its latest writes, or another node ran on a copy"
        )
        _note_loss(store, self._members.reconciliation, why)
        if not self._is_pausing(peer, "entry"):
            log.error("%s. Each address is asked for at its other holders before this node answers for it alone", why)

    def _is_pausing(self, peer: str, what: str) -> bool:
        """Whether this peer has cost enough work of that kind of late. If not, the next pause begins."""
        now = trio.current_time()
        if now < self._pauses.get((peer, what), -inf):
            return True
        self._pauses[peer, what] = now + PAUSE_SECONDS
        return False

    async def _add_hints_again(self, loss: Loss) -> None:
        """A peer lost what it had acknowledged: there are hints for it as for a new member."""
        count = await self._store.forget_acknowledged(loss.peer)
        log.warning(
            "%s (%s) came with log %s, which lacks entry %d of its log %s: its data directory was replaced by an older "
            "copy, or lost its latest writes, or it runs on a copy; %d writes that it had are sent to it again",
            self._members.name_of(loss.peer), loss.peer, loss.now.log_id, loss.known.sequence, loss.known.log_id, count,
        )  # fmt: skip
        if (presence := self._members.get(loss.peer)) is not None:
            first_seen_ms = max(self._now_ms(), presence.member.first_seen_ms + 1)
            presence.member = replace(presence.member, first_seen_ms=first_seen_ms)
            await self._store.save_member(presence.member)
        self._positions.mended(loss)
        self._members.notify_changed()


def compare_with_last_run(store: Store, reconciliation: Reconciliation, last_log: str) -> None:
    """Find out at the start whether the store is that of the last run, whose log the audit log names ('': none).

    A store that was replaced while the node did not run, by an older copy or by that of a clone, lacks this log.
    """
    has_log = last_log in (store.log_id, *(log.log_id for log in store.former_logs))
    if not last_log or has_log or store.damage.lost:
        return
    why = (
        f"the audit log names the run {last_log} of this node, and the store has nothing of it: it was replaced by an "
        "older or another copy while the node did not run, and lacks what was written since"
    )
    log.error("%s", why)
    _note_loss(store, reconciliation, why)


def _note_loss(store: Store, reconciliation: Reconciliation, why: str) -> None:
    """The store lost entries: other holders must be asked, also after the next start."""
    reconciliation.begin(why)
    if store.mark(RECONCILED_MARK) != "0":
        for mark, text in of_loss(why).items():
            store.set_mark(mark, text)
