"""Log positions: what this node knows of the logs of its peers, and which of them lost entries or run twice.

A peer tells the sequence of its last entry with each pong, with each acknowledgement and with each write of its own. So
what it acknowledged, and what it wrote, is up to there in the log that its hello named. When it comes with a log whose
lineage lacks that entry (`protocols/log_lineage.py`), it does not have all of it any more.

A log belongs to one run of one node. A peer that comes with log A, then with B, and then with A again, is two nodes
that run with one identity, which disconnect each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import trio

from node.store.base import Store
from protocols.log_lineage import LogPosition, includes

TWIN_SECONDS = 5.0
"""Another node with the identity of a peer that was not heard for so long is gone. A connected one is every 2 s."""
RUNS_KEPT_MAX = 8


@dataclass(slots=True)
class _Run:
    """One run of a peer: where it was, and when it was heard last."""

    address: str
    at: float


class Loss(NamedTuple):
    """A peer lacks entries: the last one that was known, and the last one of the log that it has now."""

    peer: str
    known: LogPosition
    now: LogPosition


class LogPositions:
    """Takes hellos and sequences; `next_loss` gives each loss to its caller, which mends it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._to_mend: dict[str, Loss] = {}
        self._found = trio.Event()
        self._present: dict[str, str] = {}
        """The log of the peer's last hello."""
        self._lost: dict[str, bool] = {}
        """The peers whose present log lacks entries; True once that is being mended."""
        self._runs: dict[str, dict[str, _Run]] = {}
        """By peer and log, the latest hello last."""
        self._twins: dict[str, None] = {}

    def known(self, peer: str) -> LogPosition | None:
        """The last entry of a peer's log that this node knows of: for a hello to that peer."""
        return self._store.member_log(peer)

    def greeted(self, peer: str, log_id: str, former: Sequence[LogPosition], address: str, now: float) -> None:
        """A peer said hello, and named its log and those before it."""
        known = self._store.member_log(peer)
        self._present[peer] = log_id
        self._lost.pop(peer, None)
        if known is not None and not includes(log_id, former, known):
            self._lost[peer] = False
        runs = self._runs.setdefault(peer, {})
        if log_id in runs and next(reversed(runs)) != log_id:
            self._twins[peer] = None
        runs.pop(log_id, None)
        runs[log_id] = _Run(address, now)
        if len(runs) > RUNS_KEPT_MAX:
            del runs[next(iter(runs))]

    def heard(self, peer: str, sequence: int, at: float) -> None:
        """A peer told the sequence of the last entry of its log. It does so only after it got this node's hello."""
        log_id = self._present.get(peer)
        if log_id is None:
            return
        self._runs[peer][log_id].at = at
        if not sequence:
            return
        known, now = self._store.member_log(peer), LogPosition(log_id, sequence)
        if peer not in self._lost:
            if known is None or known.log_id != log_id or sequence > known.sequence:
                self._store.set_member_log(peer, now)
        elif known is not None and not self._lost[peer]:
            self._lost[peer] = True
            self._to_mend[peer] = Loss(peer, known, now)
            self._found.set()

    async def next_loss(self) -> Loss:
        """Wait for a loss, of which the peer was told for certain. `mended` or `not_mended` must follow."""
        while not self._to_mend:
            self._found = trio.Event()
            await self._found.wait()
        return self._to_mend.pop(next(iter(self._to_mend)))

    def mended(self, loss: Loss) -> None:
        """There are hints again for what the peer lost."""
        if self._present.get(loss.peer) == loss.now.log_id:
            self._lost.pop(loss.peer, None)
            self._store.set_member_log(loss.peer, loss.now)

    def not_mended(self, loss: Loss) -> None:
        """That failed, and is tried again when the peer is heard next."""
        if loss.peer in self._lost:
            self._lost[loss.peer] = False

    def has_lost(self, peer: str) -> bool:
        """Whether a peer lacks what it acknowledged, and has no hints for it again yet."""
        return peer in self._lost

    def twin_of(self, peer: str, now: float) -> tuple[str, str] | None:
        """The log and the address of another node that runs with this peer's identity, as seen of late."""
        present = self._present.get(peer)
        if peer not in self._twins or present is None:
            return None
        others = [(log_id, run) for log_id, run in self._runs[peer].items() if log_id != present]
        late = [(log_id, run.address) for log_id, run in others if now < run.at + TWIN_SECONDS]
        if not late:
            del self._twins[peer]
            return None
        return late[-1]

    def forget(self, peer: str) -> None:
        for known in (self._present, self._lost, self._to_mend, self._runs, self._twins):
            known.pop(peer, None)
