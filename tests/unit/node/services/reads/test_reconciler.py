"""The reconciler asks for each key in the log once, and goes on where it was after a restart."""

from collections.abc import Callable

import pytest
import trio

from node.services.reads.reconciler import Reconciler
from node.store.log import Incoming, Origin
from node.store.marks import RECONCILED_MARK
from node.store.members import Member
from node.store.memory.store import MemoryStore
from node.swarm.members import Members
from node.swarm.reconciliation import Reconciliation
from protocols.envelope import Envelope, seal
from protocols.errors import Unavailable
from protocols.keys import PrivateKey
from tests.until import until

KEY = PrivateKey.from_seed(bytes(32))
ANN = PrivateKey.from_seed(b"\1" * 32).peer_id


def envelope(number: int, version: int = 1) -> Envelope:
    return seal(
        KEY, address=f"ucxl://a:r@p:t/*^/{number}", content=b"x", content_type="text/plain", version=version, parents=()
    )


class Rig:
    """A store that lost something, one member, and a swarm that answers or not."""

    def __init__(self, until: int = 0) -> None:
        self.store = MemoryStore(log_id="0" * 16)
        ann = Member(peer=ANN, name="ann", addresses=(), first_seen_ms=0, last_seen_ms=0)
        self.members = Members(
            KEY.peer_id, replication=20, members=[ann], reconciliation=Reconciliation("ann knows entry 7", until)
        )
        self.asks_swarm = True
        self.asked: list[bytes] = []
        self.answers: Callable[[bytes], bool] = lambda _: True
        self.reconciler = Reconciler(self.store, self, self.members)  # type: ignore[arg-type]  # what it uses of a DHT

    async def get(self, key: bytes, **_: object) -> None:
        self.asked.append(key)
        if not self.answers(key):
            raise Unavailable("nobody answers")
        self.members.reconciliation.asked(key)

    async def merge(self, *items: Envelope) -> None:
        await self.store.merge([Incoming(item, Origin.PEER) for item in items], now_ms=1)

    def hear(self) -> None:
        """The member says that it has no hints."""
        presence = self.members.get(ANN)
        assert presence is not None
        self.members.caught_up(presence, trio.current_time())

    @property
    def mark(self) -> str | None:
        return self.store.mark(RECONCILED_MARK)


async def test_each_key_is_asked_for_once_and_new_ones_when_they_come(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig()
    await rig.merge(envelope(1), envelope(2), envelope(1, 2))
    rig.hear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.reconciler.run)
        await until(lambda: rig.mark == "3")
        assert rig.asked == [envelope(1).key, envelope(2).key]
        assert rig.members.reconciliation.in_words(others=2) == ""
        await rig.merge(envelope(3), envelope(2, 2))
        await until(lambda: rig.mark == "5")
        assert rig.asked[2:] == [envelope(3).key]
        nursery.cancel_scope.cancel()
    assert caplog.text.count("it lacks nothing any more") == 1


async def test_a_later_run_asks_only_for_what_came_after_the_mark(autojump_clock: trio.testing.MockClock) -> None:
    rig = Rig(until=2)
    await rig.merge(envelope(1), envelope(2), envelope(3))
    assert rig.members.reconciliation.must_ask(envelope(1).key)
    rig.hear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.reconciler.run)
        await until(lambda: rig.mark == "3")
        nursery.cancel_scope.cancel()
    assert rig.asked == [envelope(3).key]
    assert not rig.members.reconciliation.must_ask(envelope(1).key)


async def test_nothing_is_asked_for_while_a_member_may_owe_something(autojump_clock: trio.testing.MockClock) -> None:
    rig = Rig()
    await rig.merge(envelope(1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.reconciler.run)
        await trio.sleep(20.0)
        assert rig.asked == []
        rig.hear()
        await until(lambda: rig.mark == "1")
        nursery.cancel_scope.cancel()


async def test_a_key_that_not_all_holders_answered_for_is_asked_for_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    rig = Rig()
    rig.answers = lambda _: len(rig.asked) > 3
    await rig.merge(envelope(1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.reconciler.run)

        async def hear() -> None:
            while True:
                rig.hear()
                await trio.sleep(1.0)

        nursery.start_soon(hear)
        await until(lambda: rig.mark == "1")
        nursery.cancel_scope.cancel()
    assert rig.asked == [envelope(1).key] * 4


async def test_a_further_loss_begins_again(autojump_clock: trio.testing.MockClock) -> None:
    rig = Rig()
    await rig.merge(envelope(1))
    rig.hear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.reconciler.run)
        await until(lambda: rig.mark == "1")
        rig.members.reconciliation.begin("ann knows entry 9")
        rig.hear()
        await until(lambda: len(rig.asked) == 2)
        nursery.cancel_scope.cancel()
    assert rig.asked == [envelope(1).key] * 2
