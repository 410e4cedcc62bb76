"""Hints for content that a disk changed: what is damaged is never sent, and delivered once it is whole again."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import trio

from node.services.writes.hint_retry import HintRetry
from node.services.writes.hinted_handoff import DAMAGED_MS, HintedHandoff
from node.store.log import Incoming, Origin
from node.swarm.delivery import Delivery
from node.swarm.members import Members
from protocols.envelope import Envelope
from protocols.errors import BzzzError
from tests.unit.node.store.sqlite.files import ALICE, NOW, envelope, opened, put
from tests.until import until

ITEMS = [envelope(version, path=f"doc{version}", content=b"content %d" % version) for version in range(1, 6)]
VICTIM = ITEMS[2]


class AllDelivered:
    """A `Delivery` whose peer acknowledges everything at once."""

    def __init__(self) -> None:
        self.delivered: list[Envelope] = []

    def room(self, _: str) -> int:
        return 1000

    def round_trip_seconds(self, _: str) -> float:
        return 0.001

    def deliver(self, _: str, item: Envelope, on_done: Callable[[BzzzError | None], None], trace: str) -> bool:
        self.delivered.append(item)
        on_done(None)
        return True


class Reachable:
    """`Members` that are all here."""

    def is_reachable(self, _: str) -> bool:
        return True

    def get(self, _: str) -> None:
        return None

    async def changed(self) -> None:
        await trio.sleep_forever()


async def test_a_hint_for_damaged_content_waits_for_the_content_and_is_not_quarantined(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    async with opened(path) as store:
        await put(store, *ITEMS, holders=(ALICE,))
    data = bytearray(path.read_bytes())
    data[data.index(VICTIM.content)] ^= 1
    path.write_bytes(data)
    now = [NOW]
    delivery = AllDelivered()
    async with opened(path) as store, trio.open_nursery() as nursery:
        handoff = HintedHandoff(
            store,
            cast(Delivery, delivery),
            cast(Members, Reachable()),
            retry=HintRetry(
                store, own="me", now_ms=lambda: now[0], chance=lambda: 0.5, on_own_clock_ahead=lambda _: None
            ),
            now_ms=lambda: now[0],
        )
        nursery.start_soon(handoff.run)
        await until(lambda: store.hint_counts() == {ALICE: 1})
        assert {item.digest for item in delivery.delivered} == {item.digest for item in ITEMS} - {VICTIM.digest}
        assert store.pending().refused == 0
        (hint,) = await store.hints()
        assert "damaged on this node's disk" in hint.refusal
        await store.merge([Incoming(VICTIM, Origin.PEER)], now_ms=NOW)
        now[0] += DAMAGED_MS
        await until(lambda: store.hint_counts() == {})
        assert delivery.delivered[-1].content == VICTIM.content
        nursery.cancel_scope.cancel()
