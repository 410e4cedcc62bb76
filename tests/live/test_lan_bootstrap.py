"""Bootstrap nodes that are wrong or dead: none delays the start, health says why of each, and one that comes is met."""

from pathlib import Path

from netsim.lan.node import PORT, LanNode
from netsim.lan.site import LanHost, Site
from tests.until import block_until

ITSELF = "it is this node itself"


def link_local(host: LanHost) -> str:
    (device,) = host.namespace.query("addr", "show", "dev", "eth0")
    return next(str(address["local"]) for address in device["addr_info"] if address["scope"] == "link")


def test_wrong_bootstrap_nodes_are_each_said_and_a_dead_one_is_met_when_it_starts(site: Site, tmp_path: Path) -> None:
    lan = site.lan(ip6=True)
    one, two = (LanNode(site.host(name, lan), tmp_path) for name in ("one", "two"))
    neighbour = f"/ip6/{link_local(two.host)}%eth0/tcp/{PORT}"
    whys = {
        "/dns4/nothing.invalid/tcp/1": "",
        "nothing.invalid:1": "it cannot be reached",
        "127.0.0.1:8080": ITSELF,
        f"/ip4/{one.host.ip4}/tcp/{PORT}": ITSELF,
        neighbour: "nothing listens there",
    }
    options = [option for address in whys for option in ("--bootstrap", address)]
    one.start("--no-mdns", *options)
    one.wait_ready()

    def says_why() -> bool:
        reasons = one.get("/health")["reasons"]
        return all(
            any(reason.startswith(f"the bootstrap node {address}: ") and why in reason for reason in reasons)
            for address, why in whys.items()
        )

    block_until(says_why, what="health says why each is not reached")
    assert any(reason.startswith("alone by failure: none of the 5 ") for reason in one.get("/health")["reasons"])
    two.start("--no-mdns")
    two.wait_ready()
    block_until(lambda: one.connected() == {"two"}, what="the dead one is met at its link-local address")
    assert one.get("/health")["status"] == "healthy"
