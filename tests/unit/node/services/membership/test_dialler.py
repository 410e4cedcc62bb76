"""The dialler: what becomes of a dial that fails."""

import logging
from collections.abc import Sequence
from typing import Any, cast

import pytest

from node.services.membership.dialler import Dialler
from node.swarm.base import DialFailed, Network

BOOTSTRAP, OTHER = "/ip4/192.0.2.7/tcp/4001/p2p/12D3KooWA", "/ip4/192.0.2.8/tcp/4001"


class _Network:
    """Dials fail for `why`, and succeed when there is none."""

    why = "another peer answers there, 12D3KooWB"

    async def dial(self, addresses: Sequence[str], *, timeout: float) -> str:
        if self.why:
            raise DialFailed(f"{addresses[0]}: {self.why}")
        return "12D3KooWA"


async def test_a_bootstrap_node_that_is_not_reached_is_logged_once_for_each_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    network = _Network()
    dialler = Dialler(cast(Network, network))
    dialler.report_failures([BOOTSTRAP])

    async def logged(address: str = BOOTSTRAP, **more: Any) -> list[str]:
        caplog.clear()
        await dialler.dial("12D3KooWA", (address,), more.get("is_hearsay", False))
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
