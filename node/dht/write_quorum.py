"""A write put to the vote of its holders: who has it, who refused it, who is silent, and when that is decided."""

import trio

from node.store.base import Store
from node.swarm.delivery import Delivery
from node.swarm.members import Members
from node.swarm.rpc import Silent, Unreachable
from protocols.envelope import Envelope
from protocols.errors import BzzzError, Indeterminate, Malformed, Unavailable


class WriteQuorum:
    """On one envelope that is staged; `decided` is set once the quorum has it, or cannot be reached any more."""

    def __init__(
        self,
        envelope: Envelope,
        peers: tuple[str, ...],
        quorum: int,
        *,
        delivery: Delivery,
        members: Members,
        store: Store,
    ) -> None:
        """`peers` are those that it is handed to."""
        self.quorum = quorum
        self.handed = len(peers)
        self.acknowledged: list[str] = []
        self.refusals: list[BzzzError] = []
        self.unreachable = 0
        self.silent = 0
        self.decided = trio.Event()
        self.sequence: int | None = None
        """Where it stands in this node's log once it was merged; who acknowledges it later is noted there."""
        self._envelope = envelope
        self._delivery = delivery
        self._members = members
        self._store = store
        for peer in peers:
            self._hand_out(peer, is_last=False)

    @property
    def open(self) -> int:
        """Those who may still answer."""
        return self.handed - len(self.acknowledged) - len(self.refusals) - self.unreachable - self.silent

    def _hand_out(self, peer: str, *, is_last: bool) -> None:
        def done(error: BzzzError | None) -> None:
            presence = self._members.get(peer)
            if isinstance(error, Silent) and not is_last and presence is not None and presence.is_connected:
                # It may have joined one that was as good as given up, or gone with a connection that is anew since.
                self._hand_out(peer, is_last=True)
                return
            self._count(peer, error)
            if error is None and self.sequence is not None:
                self._store.acknowledge(peer, (self.sequence,))

        if not self._delivery.deliver(peer, self._envelope, done):
            self._count(peer, Unreachable(f"too much waits for {peer} already"))

    def _count(self, peer: str, error: BzzzError | None) -> None:
        if error is None:
            self.acknowledged.append(peer)
        elif isinstance(error, Unreachable):
            self.unreachable += 1
        elif isinstance(error, Unavailable | Indeterminate) or type(error) is Malformed:
            self.silent += 1  # it may have been kept
        else:
            self.refusals.append(error)
        is_lost = len(self.acknowledged) + self.open < self.quorum
        is_uncertain = bool(self.acknowledged) or bool(self.silent)
        if len(self.acknowledged) >= self.quorum or not self.open or (is_lost and is_uncertain):
            self.decided.set()  # while all of them refuse, the last one's word makes it certain
