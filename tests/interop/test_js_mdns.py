"""js-libp2p and a node of ours on one LAN: each finds the other by mDNS."""

from pathlib import Path

from netsim.lan.node import LanNode
from netsim.lan.site import Site
from tests.interop.js_mdns_peer import JsMdnsPeer
from tests.until import block_until


def test_js_libp2p_finds_a_node_and_is_found_by_mdns(site: Site, packages: Path, tmp_path: Path) -> None:
    lan = site.lan()
    node = LanNode(site.host("node", lan), tmp_path)
    node.start()
    node.wait_ready()
    js = JsMdnsPeer(site.host("js", lan), packages, tmp_path / "js")
    block_until(lambda: node.peer_id in js.found(), what="js-libp2p finds the node")
    block_until(lambda: node.peer_id in js.connected(), what="the node finds and dials js-libp2p")
