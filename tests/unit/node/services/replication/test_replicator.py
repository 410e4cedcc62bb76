"""Replicator: what is saved of the positions in the log."""

from collections.abc import Iterator
from itertools import count
from typing import cast

import trio

from node.services.replication.replicator import SAVE_SECONDS, Replicator
from node.store.log import Incoming, Origin
from node.store.members import Member
from node.store.memory.store import MemoryStore
from node.swarm.delivery import Delivery
from node.swarm.members import Members
from node.swarm.rpc import Rpc
from protocols.envelope import Envelope, seal
from protocols.keys import PrivateKey
from protocols.messages import GetMissing, MissingReply
from protocols.placement import nearest

AUTHOR = PrivateKey.from_seed(bytes(32))
OWN, BEN, ANN = (PrivateKey.from_seed(bytes([number]) * 32).peer_id for number in range(1, 4))


class Others:
    """Members that lack nothing, or that take their time."""

    def __init__(self) -> None:
        self.is_slow = False
        self.asked: list[str] = []

    async def call(self, peer: str, request: GetMissing, *, timeout: float) -> MissingReply:
        self.asked.append(peer)
        if self.is_slow:
            await trio.sleep_forever()
        return MissingReply((), ())


def envelopes_held_by(*holders: str) -> Iterator[Envelope]:
    """Envelopes of an author elsewhere, whose holders are these of the three nodes."""
    for number in count():
        address = f"ucxl://a:r@p:t/*^/{number}"
        envelope = seal(AUTHOR, address=address, content=b"x", content_type="text/plain", version=1, parents=())
        if nearest(envelope.key, (OWN, ANN, BEN), 2) == holders:
            yield envelope


async def test_positions_are_never_saved_for_other_members_than_those_they_are_of(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Ann is gone, and Ben holds in her place: what Ann was fed does not say that Ben has it."""
    store, others = MemoryStore(log_id="a" * 16), Others()
    known = [Member(peer=peer, name="", addresses=(), first_seen_ms=0, last_seen_ms=0) for peer in (ANN, BEN)]
    members = Members(OWN, replication=2, members=known)
    for presence in members.all():
        presence.is_connected = True
    replicator = Replicator(
        store,
        members,
        rpc=cast(Rpc, others),
        delivery=cast(Delivery, None),
        now_ms=lambda: 1_800_000_000_000,
        bytes_per_second=1e6,
        is_on=lambda: True,
    )
    envelopes = envelopes_held_by(OWN, ANN)

    async def feed() -> None:
        await store.merge([Incoming(next(envelopes), Origin.PEER)], now_ms=0)
        while replicator.unfed(store.last_sequence) or not replicator.feeding.positions:
            await trio.sleep(0.5)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(replicator.run)
        await feed()
        await trio.sleep(2.0)
        assert {await store.cursor(name) for name in store.cursor_names("replicas/")} == {1}
        await feed()
        assert others.asked == [ANN, ANN]
        others.is_slow = True
        members.replace([ANN])
        await trio.sleep(2 * SAVE_SECONDS)
        assert others.asked[-1] == BEN
        nursery.cancel_scope.cancel()
    saved = {name: await store.cursor(name) for name in store.cursor_names("replicas/")}
    assert not [name for name, at in saved.items() if BEN in name and at == 2], "Ben was not asked yet"
