"""Write quorum: sends one staged envelope to its holders and counts the answers until the outcome is decided."""

import trio

from node.store.base import Store
from node.swarm.delivery import Delivery
from node.swarm.members import Members
from node.swarm.rpc import Silent, Unreachable
from protocols.envelope import Envelope
from protocols.errors import BzzzError, Indeterminate, Malformed, Unavailable


class WriteQuorum:
    """The answers to one staged envelope. `decided` is set once the quorum acknowledged, or can no longer do so."""

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
        """`peers` are the holders that the envelope is sent to."""
        self.quorum = quorum
        self.sent = len(peers)
        self.acknowledged: list[str] = []
        self.refusals: list[BzzzError] = []
        self.unreachable = 0
        self.unknown = 0
        """Holders that may have stored it, or not."""
        self.decided = trio.Event()
        self.sequence: int | None = None
        """Its place in this node's log once it was merged: later acknowledgements are recorded there."""
        self._envelope = envelope
        self._delivery = delivery
        self._members = members
        self._store = store
        for peer in peers:
            self._send(peer, is_retry=False)

    @property
    def is_reached(self) -> bool:
        return len(self.acknowledged) >= self.quorum

    @property
    def outstanding(self) -> int:
        """How many holders have not answered yet."""
        return self.sent - len(self.acknowledged) - len(self.refusals) - self.unreachable - self.unknown

    @property
    def is_unsent(self) -> bool:
        """Whether the envelope reached no connection at all."""
        return self.unreachable == self.sent

    @property
    def refusal(self) -> BzzzError | None:
        """The first refusal, when every holder that was reached refused: then no holder has the envelope."""
        is_refused_by_all = len(self.refusals) + self.unreachable == self.sent
        return self.refusals[0] if self.refusals and is_refused_by_all else None

    def _send(self, peer: str, *, is_retry: bool) -> None:
        def on_done(error: BzzzError | None) -> None:
            presence = self._members.get(peer)
            is_here = presence is not None and (presence.is_connected or presence.is_idle)
            if isinstance(error, Silent) and not is_retry and is_here:
                # The delivery may have joined an earlier one that was about to time out, or may have been lost with a
                # connection that was opened again since.
                self._send(peer, is_retry=True)
                return
            self._count(peer, error)
            if error is None and self.sequence is not None:
                self._store.acknowledge(peer, (self.sequence,))

        if not self._delivery.deliver(peer, self._envelope, on_done):
            self._count(peer, Unreachable(f"too much waits for {peer} already"))

    def _count(self, peer: str, error: BzzzError | None) -> None:
        if error is None:
            self.acknowledged.append(peer)
        elif isinstance(error, Unreachable):
            self.unreachable += 1
        elif isinstance(error, Unavailable | Indeterminate) or type(error) is Malformed:
            self.unknown += 1
        else:
            self.refusals.append(error)
        is_lost = len(self.acknowledged) + self.outstanding < self.quorum
        is_uncertain = bool(self.acknowledged) or bool(self.unknown)
        if self.is_reached or not self.outstanding or (is_lost and is_uncertain):
            self.decided.set()  # while all answers are refusals, the last one decides whether none has it
