"""Nodes on a LAN whose addresses come and go: each is back in its swarm, and others are told where it is now.

mDNS is off but where a test says otherwise: a node knows one bootstrap node, and learns of the others from members.
"""

import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from netsim.lan.node import PORT, LanNode
from netsim.lan.site import LanHost, Site
from tests.until import block_until

NO_MDNS = ("--no-mdns",)
NO_DISCOVERY = {f"BZZZ_DISCOVERY_{source}": "false" for source in ("EXCHANGE", "ANNOUNCE", "DHT")}


def started(host: LanHost, folder: Path, *options: str, environment: dict[str, str] | None = None) -> LanNode:
    node = LanNode(host, folder)
    node.start(*options, environment=environment)
    node.wait_ready()
    return node


def bootstrap(node: LanNode) -> tuple[str, ...]:
    return (*NO_MDNS, "--bootstrap", node.address_on(node.host.ip4))


def moved(node: LanNode, ip4: str) -> None:
    """Its only interface has this address now, or none."""
    node.host.readdress(node.host.interfaces[0], ip4)


def told(node: LanNode, peer: LanNode) -> list[str]:
    """Where `node` would dial a peer, as its list of peers says."""
    return [
        address
        for known in node.get("/v1/peers")["peers"]
        if known["peer_id"] == peer.peer_id
        for address in known["multiaddrs"]
    ]


def until_all_see_all_where_they_are(nodes: Sequence[LanNode]) -> None:
    """All are connected, and each knows the others at their addresses of now, and at no former one."""
    for node in nodes:
        others = [other for other in nodes if other is not node]

        def sees_all(node: LanNode = node, others: Sequence[LanNode] = others) -> bool:
            with suppress(OSError):  # a node that has just woken may be slow to answer
                return node.connected() >= {other.name for other in others} and all(
                    told(node, other) == [f"/ip4/{other.host.ip4}/tcp/{PORT}/p2p/{other.peer_id}"] for other in others
                )
            return False

        block_until(sees_all, what=f"{node.name} sees all where they are now")


def test_nodes_that_start_before_their_interface_has_an_address_meet_each_other(site: Site, tmp_path: Path) -> None:
    lan = site.lan()
    third = started(site.host("third", lan), tmp_path, *NO_MDNS)
    hosts = [site.host(name, lan) for name in ("one", "two")]
    addresses = [host.ip4 for host in hosts]
    for host in hosts:
        host.readdress(host.interfaces[0], "")
    one, two = (started(host, tmp_path, *bootstrap(third)) for host in hosts)
    assert not one.connected() and not two.connected()
    for node, address in zip((one, two), addresses, strict=True):
        moved(node, address)
    until_all_see_all_where_they_are([one, two, third])


def test_a_node_that_moves_is_known_where_it_is_also_to_one_that_comes_later(site: Site, tmp_path: Path) -> None:
    lan = site.lan()
    third = started(site.host("third", lan), tmp_path, *NO_MDNS)
    moving = started(site.host("moving", lan), tmp_path, *bootstrap(third))
    until_all_see_all_where_they_are([third, moving])
    moved(moving, "10.77.1.77")
    until_all_see_all_where_they_are([third, moving])
    late = started(site.host("late", lan), tmp_path, *bootstrap(third))
    until_all_see_all_where_they_are([third, moving, late])


def test_two_nodes_that_move_at_once_meet_again_by_the_third(site: Site, tmp_path: Path) -> None:
    lan = site.lan()
    third = started(site.host("third", lan), tmp_path, *NO_MDNS)
    one, two = (started(site.host(name, lan), tmp_path, *bootstrap(third)) for name in ("one", "two"))
    until_all_see_all_where_they_are([one, two, third])
    for node, address in ((one, "10.77.1.81"), (two, "10.77.1.82")):
        moved(node, address)
    until_all_see_all_where_they_are([one, two, third])


def test_two_nodes_alone_that_move_at_once_meet_again_by_mdns(site: Site, tmp_path: Path) -> None:
    lan = site.lan()
    one, two = (started(site.host(name, lan), tmp_path) for name in ("one", "two"))
    until_all_see_all_where_they_are([one, two])
    for node, address in ((one, "10.77.1.81"), (two, "10.77.1.82")):
        moved(node, address)
    until_all_see_all_where_they_are([one, two])


def test_a_machine_that_sleeps_and_wakes_elsewhere_is_back(site: Site, tmp_path: Path) -> None:
    lan = site.lan()
    third = started(site.host("third", lan), tmp_path, *NO_MDNS)
    sleeper = started(site.host("sleeper", lan), tmp_path, *bootstrap(third))
    until_all_see_all_where_they_are([third, sleeper])
    os.kill(sleeper.pid, signal.SIGSTOP)
    moved(sleeper, "10.77.1.91")
    block_until(lambda: not third.connected(), what="the sleeper is given up", seconds=60)
    os.kill(sleeper.pid, signal.SIGCONT)
    until_all_see_all_where_they_are([third, sleeper])


def test_bridges_that_lead_nowhere_do_not_keep_nodes_apart(site: Site, tmp_path: Path) -> None:
    """Each of the nodes has the same address on a bridge of its own: at it each one reaches itself alone."""
    lan = site.lan()
    hosts = [site.host(name, lan) for name in ("one", "two", "three")]
    for host in hosts:
        host.bridge("docker0", "172.17.0.1/16")
    one = started(hosts[0], tmp_path, *NO_MDNS)
    two, three = (started(host, tmp_path, *bootstrap(one)) for host in hosts[1:])
    for node in (one, two, three):
        block_until(lambda node=node: len(node.connected()) == 2, what=f"{node.name} sees both others")  # type: ignore[misc]
    chosen = started(site.host("chosen", lan), tmp_path, *bootstrap(one), "--announce", "10.77.0.0/16")
    chosen.host.bridge("docker0", "172.17.0.1/16")
    block_until(lambda: len(chosen.connected()) == 3, what="chosen sees all")
    assert all("/10.77." in address for address in told(two, chosen))


def test_a_restarted_node_is_back_without_any_discovery(site: Site, tmp_path: Path) -> None:
    lan = site.lan()
    third = started(site.host("third", lan), tmp_path, *NO_MDNS)
    one, two = (started(site.host(name, lan), tmp_path, *bootstrap(third)) for name in ("one", "two"))
    until_all_see_all_where_they_are([one, two, third])
    third.kill()
    two.kill()
    block_until(lambda: not one.connected(), what="the others are gone")
    for node in (third, two):
        node.start(*NO_MDNS, environment=NO_DISCOVERY)
        node.wait_ready()
    block_until(lambda: two.connected() == {"one", "third"}, what="it is back")
