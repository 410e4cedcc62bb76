"""Nodes on LANs: found by mDNS alone; without multicast, by one address; by a router; over cables."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from netsim.lan.node import SOURCES, LanNode
from netsim.lan.site import LanHost, Site
from tests.until import block_until

ALONE = {"BZZZ_DISCOVERY_EXCHANGE": "false"}
"""Members are not asked whom they know: a peer is found by its own answer, or not at all."""


def started(
    hosts: Sequence[LanHost], folder: Path, *options: str, environment: dict[str, str] | None = None
) -> list[LanNode]:
    nodes = [LanNode(host, folder) for host in hosts]
    for node in nodes:
        node.start(*options, environment=environment)
    for node in nodes:
        node.wait_ready()
    return nodes


def mdns_of(node: LanNode) -> dict[str, Any]:
    (found,) = [finder for finder in node.get("/v1/discovery")["finders"] if finder["kind"] == "mdns"]
    return dict(found)


def until_all_see_all(nodes: Sequence[LanNode]) -> None:
    names = {node.name for node in nodes}
    for node in nodes:
        block_until(lambda node=node: node.connected() >= names - {node.name}, what=f"{node.name} sees all")  # type: ignore[misc]


def test_five_nodes_find_each_other_by_mdns_alone(site: Site, tmp_path: Path) -> None:
    lan = site.lan(ip6=True)
    nodes = started([site.host(f"n{number}", lan) for number in range(5)], tmp_path, environment=ALONE)
    until_all_see_all(nodes)
    mdns = mdns_of(nodes[0])
    assert mdns["on"] and mdns["interfaces"] == ["eth0"] and not mdns["faults"]
    assert mdns["counts"]["heard"] >= 4 and mdns["counts"]["own_heard"]


def test_without_multicast_one_address_is_enough(site: Site, tmp_path: Path) -> None:
    lan = site.lan()
    lan.carry_multicast(is_on=False)
    hosts = [site.host(f"n{number}", lan) for number in range(5)]
    first = started(hosts[:1], tmp_path)[0]
    lonely = started(hosts[1:2], tmp_path)[0]
    others = started(hosts[2:], tmp_path, "--bootstrap", first.address_on(hosts[0].ip4))
    until_all_see_all([first, *others])
    assert not lonely.connected(), "multicast got through"
    lan.carry_multicast(is_on=True)
    lonely.stop()
    lonely.start()
    lonely.wait_ready()
    until_all_see_all([first, lonely, *others])


def test_nodes_of_two_lans_meet_by_a_router_and_one_address(site: Site, tmp_path: Path) -> None:
    left, right = site.lan(), site.lan()
    router = site.router("router", left, right)
    hosts = [site.host("left1", left), site.host("left2", left), site.host("right1", right), site.host("right2", right)]
    for host in hosts:
        host.route_by(router, host.interfaces[0].lan)
    on_left = started(hosts[:2], tmp_path)
    right1 = started(hosts[2:3], tmp_path)[0]
    until_all_see_all(on_left)
    assert not right1.connected(), "mDNS crossed the router"
    right2 = started(hosts[3:], tmp_path, "--bootstrap", on_left[0].address_on(hosts[0].ip4))[0]
    until_all_see_all([*on_left, right1, right2])


def test_a_node_without_ipv4_is_found_by_ipv6(site: Site, tmp_path: Path) -> None:
    lan = site.lan(ip4=False, ip6=True)
    until_all_see_all(started([site.host(f"n{number}", lan) for number in range(2)], tmp_path, environment=ALONE))


def test_an_interface_may_come_later_and_go_and_come_again(site: Site, tmp_path: Path) -> None:
    home, away = site.lan(ip6=True), site.lan(ip6=True)
    hosts = [site.host("moving", home), site.host("home", home), site.host("away", away)]
    moving, at_home, elsewhere = started(hosts, tmp_path, environment=ALONE)
    until_all_see_all([moving, at_home])
    hosts[0].join(away)
    until_all_see_all([moving, elsewhere])
    hosts[0].down(hosts[0].interfaces[0])
    block_until(lambda: "home" not in moving.connected(), what="the cable is noticed")
    hosts[0].up(hosts[0].interfaces[0])
    until_all_see_all([moving, at_home])
    until_all_see_all([moving, elsewhere])


def test_an_interface_that_is_replaced_by_one_with_the_same_address_hears_new_nodes(site: Site, tmp_path: Path) -> None:
    lan = site.lan()
    hosts = [site.host(name, lan) for name in ("one", "two")]
    one = started(hosts[:1], tmp_path, environment=ALONE)[0]
    block_until(lambda: mdns_of(one)["counts"]["own_heard"], what="it is on the LAN")
    hosts[0].exchange(hosts[0].interfaces[0])
    until_all_see_all([one, *started(hosts[1:], tmp_path, environment=ALONE)])


def test_networks_of_other_names_and_nodes_without_mdns_are_not_found(site: Site, tmp_path: Path) -> None:
    lan = site.lan()
    hosts = [site.host(name, lan) for name in ("one", "two", "other", "hidden")]
    one, two = started(hosts[:2], tmp_path)
    other = started(hosts[2:3], tmp_path, environment={"BZZZ_NETWORK": "other"})[0]
    hidden = started(hosts[3:], tmp_path, "--no-mdns")[0]
    until_all_see_all([one, two])
    assert one.connected() == {"two"} and not other.connected() and not hidden.connected()


def test_mdns_is_switched_off_and_on_while_a_node_runs(site: Site, tmp_path: Path) -> None:
    lan = site.lan()
    hosts = [site.host(name, lan) for name in ("one", "two")]
    one, two = started(hosts, tmp_path, environment=ALONE)
    until_all_see_all([one, two])

    def sources() -> list[str]:
        (peer,) = [peer for peer in one.get("/v1/peers")["peers"] if peer["name"] == "two"]
        return [source["source"] for source in peer["sources"]]

    def switch(value: str) -> None:
        flags = [sys.executable, "-m", "node.cli", "flags", "set", f"discovery_mdns={value}"]
        assert hosts[1].namespace.start(flags, stdout=subprocess.DEVNULL, cwd=SOURCES).wait() == 0

    block_until(lambda: "mdns" in sources(), what="two is on the LAN")
    switch("false")
    block_until(lambda: "mdns" not in sources(), what="two has said goodbye")
    assert not mdns_of(two)["on"] and one.connected() == {"two"}
    switch("true")
    block_until(lambda: "mdns" in sources(), what="two is back")
