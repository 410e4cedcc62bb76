"""What of a sighting is taken: addresses that are the peer's own, lead somewhere, and are few."""

import pytest
import trio

from node.services.membership.sighting_filter import SightingFilter
from node.services.membership.this_node import ThisNode
from node.swarm.limit_counters import LimitCounters
from protocols.policy.own_addresses import AddressRules
from protocols.policy.peer_addresses import ADDRESSES_MAX
from protocols.policy.sighting import Sighting, Source
from tests.unit.one_end import OneEnd

LAN, LOOPBACK, LINK = "/ip4/10.0.0.7/tcp/1", "/ip4/127.0.0.1/tcp/1", "/ip6/fe80::1%eth0/tcp/1"
REMOTES = {"near": "/ip4/127.0.0.1/tcp/50000", "far": "/ip4/10.0.0.9/tcp/50000"}
"""A peer on this machine, and one on another."""


class Rig:
    def __init__(self) -> None:
        net = OneEnd()
        self.counters = LimitCounters()
        this_node = ThisNode(net, name="n1", network_name="test", rules=AddressRules())
        self.filter = SightingFilter(net, this_node, self.counters, lambda peer: REMOTES.get(peer, ""))

    def taken(self, peer: str, *addresses: str, source: Source, reporter: str = "") -> list[str] | None:
        sighting = Sighting(peer=peer, addresses=addresses, source=source, reporter=reporter)
        cleaned = self.filter.cleaned(sighting)
        return None if cleaned is None else list(cleaned.addresses)


def of(peer: str, *addresses: str) -> list[str]:
    return [f"{address}/p2p/{peer}" for address in addresses]


@pytest.mark.parametrize(
    "source", [Source.HELLO, Source.MDNS, Source.API, Source.EXCHANGE, Source.ANNOUNCE, Source.DHT]
)
async def test_an_address_of_another_node_is_dropped_and_counted(source: Source) -> None:
    rig = Rig()
    assert rig.taken("far", *of("far", LAN), *of("other", LAN), LAN, source=source) == of("far", LAN)
    assert rig.counters.counts.addresses_refused == 2


@pytest.mark.parametrize(
    "address", ["/ip4/0.0.0.0/tcp/1", "/ip4/224.0.0.1/tcp/1", "/ip4/10.0.0.7/tcp/0", "/ip6/ff02::1/tcp/1"]
)
async def test_an_address_that_leads_nowhere_is_never_taken(address: str) -> None:
    for source in Source:
        assert Rig().taken("far", *of("far", address), source=source) in (None, [])


async def test_a_loopback_address_is_taken_from_a_peer_on_this_machine_alone() -> None:
    rig = Rig()
    assert rig.taken("near", *of("near", LOOPBACK), source=Source.HELLO) == of("near", LOOPBACK)
    assert rig.taken("far", *of("far", LOOPBACK, LAN), source=Source.HELLO) == of("far", LAN)
    assert rig.taken("x", *of("x", LOOPBACK), source=Source.EXCHANGE, reporter="near") == of("x", LOOPBACK)
    assert rig.taken("x", *of("x", LOOPBACK), source=Source.EXCHANGE, reporter="far") is None
    assert rig.taken("x", *of("x", LOOPBACK), source=Source.ANNOUNCE, reporter="unknown") is None
    assert rig.taken("x", *of("x", LOOPBACK), source=Source.STORE) == of("x", LOOPBACK), "of this machine's own memory"
    assert rig.taken("", LOOPBACK, source=Source.CONFIGURATION) == [LOOPBACK], "an operator knows"


async def test_an_address_with_a_zone_is_taken_from_a_source_that_knows_this_machine() -> None:
    rig = Rig()
    assert rig.taken("x", *of("x", LINK), source=Source.MDNS) == of("x", LINK)
    assert rig.taken("", LINK, source=Source.CONFIGURATION) == [LINK]
    assert rig.taken("x", *of("x", LINK), source=Source.EXCHANGE, reporter="near") is None
    assert rig.taken("far", *of("far", LINK), source=Source.HELLO) == []
    assert rig.taken("x", *of("x", LINK.replace("%eth0", "")), source=Source.MDNS) is None


async def test_a_thousand_addresses_are_cut_and_counted_and_an_operators_are_not() -> None:
    rig = Rig()
    many = [f"/ip4/10.0.{number // 250}.{number % 250 + 1}/tcp/1" for number in range(1000)]
    taken = rig.taken("far", *of("far", *many), source=Source.API)
    assert taken == of("far", *many[:ADDRESSES_MAX])
    assert rig.counters.counts.addresses_refused == 1000 - ADDRESSES_MAX
    configured = rig.taken("far", *of("far", *many), source=Source.CONFIGURATION)
    assert configured is not None
    assert len(configured) == 1000


async def test_a_hello_without_any_address_that_may_be_dialled_still_says_who_the_peer_is() -> None:
    rig = Rig()
    hello = Sighting(peer="far", addresses=(LOOPBACK,), source=Source.HELLO, name="n2", agent="bzzz/1\n")
    cleaned = rig.filter.cleaned(hello)
    assert cleaned is not None
    assert (cleaned.addresses, cleaned.name, cleaned.agent) == ((), "n2", "")


async def test_the_reporter_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    await trio.lowlevel.checkpoint()
    Rig().taken("x", *of("y", LAN), source=Source.EXCHANGE, reporter="far")
    assert f"far: address that is not dialled: {LAN}/p2p/y: it does not name x" in caplog.text
