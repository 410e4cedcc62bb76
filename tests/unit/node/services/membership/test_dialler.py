"""The dialler: what becomes of a dial that fails."""

import logging
from collections.abc import Sequence
from typing import Any, ClassVar, cast

import pytest
import trio
import trio.testing

from node.services.membership.dialler import Dialler
from node.services.membership.this_node import ThisNode
from node.swarm.base import DialFailed, Network
from protocols.policy.own_addresses import AddressRules
from protocols.policy.peer_events import ITSELF, Dial, Dialled

OWN = "/ip4/192.0.2.1/tcp/4001"
BOOTSTRAP, OTHER = "/ip4/192.0.2.7/tcp/4001/p2p/12D3KooWA", "/ip4/192.0.2.8/tcp/4001"


class _Network:
    """Dials fail for `why`, and succeed when there is none."""

    why = "another peer answers there, 12D3KooWB"
    others: ClassVar[dict[str, str]] = {}
    peer_id = "12D3KooWOWN"
    addresses = (f"{OWN}/p2p/12D3KooWOWN",)

    def __init__(self) -> None:
        self.dialled: list[tuple[str, ...]] = []

    async def dial(self, addresses: Sequence[str], *, timeout: float) -> str:
        self.dialled.append(tuple(addresses))
        if self.why == "silent":
            await trio.sleep_forever()
        if self.why:
            raise DialFailed(f"{addresses[0]}: {self.why}", self.others)
        return "12D3KooWA"


def dialler_over(network: _Network) -> Dialler:
    this_node = ThisNode(cast(Network, network), name="n1", network_name="test", rules=AddressRules())
    return Dialler(cast(Network, network), this_node)


async def test_a_bootstrap_node_that_is_not_reached_is_logged_once_for_each_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    network = _Network()
    dialler = dialler_over(network)
    dialler.report_failures([BOOTSTRAP])

    async def logged(address: str = BOOTSTRAP, **more: Any) -> list[str]:
        caplog.clear()
        await dialler.dial(Dial("12D3KooWA", (address,), more.get("is_hearsay", False)))
        return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]

    (line,) = await logged()
    assert "the bootstrap node 12D3KooWA cannot be reached" in line and "another peer answers there" in line
    assert await logged() == []
    network.why = "nothing listens there"
    assert len(await logged()) == 1
    network.why = ""
    assert await logged() == []
    network.why = "nothing listens there"
    assert len(await logged()) == 1, "it was reached meanwhile"
    assert await logged(OTHER) == [], "no operator named it"


async def test_addresses_of_this_node_are_not_dialled_and_say_so_when_there_are_no_others() -> None:
    network = _Network()
    network.why = ""
    dialler, own = dialler_over(network), f"{OWN}/p2p/12D3KooWA"
    assert await dialler.dial(Dial("12D3KooWA", (own, OTHER))) == Dialled("12D3KooWA", "12D3KooWA")
    assert network.dialled == [(OTHER,)]
    assert await dialler.dial(Dial(OWN, (OWN,))) == Dialled(OWN, "", ITSELF, ((OWN, "12D3KooWOWN"),))
    assert len(network.dialled) == 1


async def test_the_peer_that_answered_instead_is_part_of_how_a_dial_ended() -> None:
    network = _Network()
    network.others = {BOOTSTRAP: "12D3KooWB"}  # type: ignore[misc]  # of this one alone
    ended = await dialler_over(network).dial(Dial("12D3KooWA", (BOOTSTRAP,)))
    assert (ended.peer, ended.others) == ("", ((BOOTSTRAP, "12D3KooWB"),))


async def test_dials_under_way_end_when_the_network_of_this_machine_changes() -> None:
    network = _Network()
    network.why = "silent"
    dialler, ended = dialler_over(network), list[Dialled]()

    async def dial() -> None:
        ended.append(await dialler.dial(Dial("12D3KooWA", (OTHER,))))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dial)
        await trio.testing.wait_all_tasks_blocked()
        dialler.abandon()
    assert [(each.target, each.peer) for each in ended] == [("12D3KooWA", "")]
