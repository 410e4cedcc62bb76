"""The twin watch: it says once what changes, backs off once, and goes on looking while it backs off."""

import logging
from collections.abc import Sequence

import pytest
import trio

from node.swarm.libp2p.twin_search import ADDRESSES_MAX, PATIENCE_SECONDS, TwinSearch
from protocols.policy.twin import CHECK_SECONDS, REPORTED_SECONDS

WHERE = "/ip4/192.0.2.1/tcp/4001"


class Rig:
    def __init__(self) -> None:
        self.dialled: list[list[str]] = []
        self.backed_off = 0
        self.search = TwinSearch(
            b"a" * 32, dial=self._dial, on_back_off=self._back_off, log=logging.getLogger("twin watch")
        )

    async def _dial(self, addresses: Sequence[str]) -> None:
        self.dialled.append(list(addresses))

    def _back_off(self) -> None:
        self.backed_off += 1


async def test_a_reported_twin_is_said_once_backed_off_from_once_and_looked_for_until_it_is_gone(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.search.run)
        for _ in range(3):
            rig.search.reported("log", WHERE, yields=True)
        assert (rig.backed_off, rig.search.is_backing_off) == (1, True)
        await trio.sleep(2.5 * CHECK_SECONDS)
        assert rig.dialled == [[WHERE], [WHERE]]
        await trio.sleep(REPORTED_SECONDS)
        rig.search.tick()
        nursery.cancel_scope.cancel()
    assert (rig.search.is_backing_off, rig.search.in_words()) == (False, "")
    assert caplog.text.count("another node runs with this node's identity") == 1
    assert caplog.text.count("no other node runs with this node's identity any more") == 1


async def test_addresses_are_looked_at_now_and_then_and_not_all(autojump_clock: trio.testing.MockClock) -> None:
    rig = Rig()
    started_at = trio.current_time() - 100.0
    many = [f"{WHERE}{number}" for number in range(2 * ADDRESSES_MAX)]
    for _ in range(3):
        await rig.search.look(many, started_at=started_at)
    assert rig.dialled == [many[:ADDRESSES_MAX]]
    assert trio.current_time() == started_at + 100.0 + PATIENCE_SECONDS, "it waits to be found first"
