"""js-libp2p as a full member of our DHT, in both directions: peers, values, providers; forged values, and restarts."""

import json
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.js_node import JsNode
from netsim.processes.node import NodeProcess
from protocols.placement import place_of_key, place_of_peer
from protocols.ucxl import parse
from tests.interop.conftest import StartJs, StartNode
from tests.until import block_until

ENVELOPE_TYPE = "application/vnd.bzzz.envelope"
ADDRESS = "ucxl://js:writer@bzzz:interop/*^/notes.md"
VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "envelopes.json").read_text("utf-8"))
SIGNED: dict[str, Any] = VECTORS["envelopes"][0]
FORGED: str = VECTORS["forged"][0]["encoded"]
CID = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"


def key_of(address: str) -> str:
    return parse(address).key.decode()


def distance(peer: str) -> int:
    return place_of_peer(peer) ^ place_of_key(parse(ADDRESS).key)


def nearest_from(asked: str, others: list[str]) -> list[str]:
    """What js-libp2p finds near `ADDRESS` when it knows the first: it asks only who is nearer than the one asked."""
    return sorted([asked, *(peer for peer in others if distance(peer) < distance(asked))], key=distance)


def envelope_at(node: NodeProcess, address: str) -> str:
    """The encoded envelope that a node answers with, in hex; '' when it has none."""
    reply = node.client.call("GET", "/v1/envelope", {"address": address}, headers={"Accept": ENVELOPE_TYPE})
    return reply.body.hex() if reply.status == 200 else ""


def connected(node: NodeProcess) -> list[str]:
    """The members that a node is connected with."""
    peers = node.client.call("GET", "/v1/peers").data["peers"]
    return [peer["peer_id"] for peer in peers if peer["connected"] and peer["member"]]


def join(js: JsNode, node: NodeProcess) -> None:
    js.do("connect", address=node.multiaddrs[0])
    block_until(lambda: node.peer_id in js.do("table")["peers"], what="js-libp2p takes the node into its routing table")


def put(js: JsNode, key: str, value: str, *, at: NodeProcess) -> None:
    """Have js-libp2p put a value until the node has echoed it: on a busy machine a request may take too long."""
    block_until(
        lambda: at.peer_id in js.do("put", key=key, value=value)["stored"], what="js-libp2p puts a value", seconds=60
    )


def got_from(js: JsNode, node: NodeProcess, key: str) -> str:
    """The best value that js-libp2p gets, once the node is among those that answered."""
    answers: list[dict[str, Any]] = []

    def has_answered() -> bool:
        answers.append(js.do("get", key=key))
        return node.peer_id in [value["peer"] for value in answers[-1]["values"]]

    block_until(has_answered, what="js-libp2p gets a value from the node", seconds=60)
    return str(answers[-1]["value"])


def test_a_js_node_is_found_and_finds_others_through_our_nodes(start_js: StartJs, start_node: StartNode) -> None:
    ada = start_node("ada")
    bob = start_node("bob", ada)
    one, two = start_js("one"), start_js("two")
    for js in (one, two):
        join(js, ada)
    block_until(lambda: one.do("findPeer", peer=bob.peer_id)["found"], what="js-libp2p finds bob through ada")
    block_until(lambda: two.do("findPeer", peer=one.peer_id)["found"], what="a js node finds the other through ada")

    def all_are_found() -> bool:
        found = [contact["peer"] for contact in two.do("getClosestPeers", key=key_of(ADDRESS))["peers"]]
        assert found == sorted(found, key=distance)
        return {*nearest_from(ada.peer_id, [bob.peer_id, one.peer_id])} <= {*found}  # and those it met meanwhile

    block_until(all_are_found, what="a js node finds the closest peers")


def test_an_envelope_passes_in_both_directions_byte_for_byte(start_js: StartJs, start_node: StartNode) -> None:
    ada, js = start_node("ada"), start_js("one")
    join(js, ada)

    put(js, SIGNED["key"], SIGNED["encoded"], at=ada)
    assert envelope_at(ada, SIGNED["address"]) == SIGNED["encoded"]
    put(js, SIGNED["key"], SIGNED["encoded"], at=ada)  # again

    ada.client.put(ADDRESS, b"written in Python")
    assert got_from(js, ada, key_of(ADDRESS)) == envelope_at(ada, ADDRESS) != ""


def test_an_envelope_made_in_javascript_is_read_by_our_node(
    start_js: StartJs, start_node: StartNode, packages: Path
) -> None:
    ada, js = start_node("ada"), start_js("one")
    join(js, ada)
    sealed = subprocess.run(
        ["node", "seal.mjs", "07" * 32, ADDRESS, "written in JavaScript"],
        cwd=packages, capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    put(js, key_of(ADDRESS), sealed, at=ada)
    assert ada.client.get(ADDRESS).body == b"written in JavaScript"


def test_a_js_node_that_keeps_values_counts_in_no_quorum(start_js: StartJs, start_node: StartNode) -> None:
    ada, js = start_node("ada"), start_js("one")
    join(js, ada)
    js.do("put", key=SIGNED["key"], value=SIGNED["encoded"])
    receipt = ada.client.put(ADDRESS, b"written beside a js node").data
    assert (receipt["acknowledged"], receipt["wanted"], receipt["replicated"]) == (0, 0, False)
    assert connected(ada) == [], "it is no member"


def test_a_forged_envelope_is_refused(start_js: StartJs, start_node: StartNode) -> None:
    ada, js = start_node("ada"), start_js("one")
    join(js, ada)
    assert js.do("put", key=SIGNED["key"], value=FORGED)["stored"] == []
    assert js.do("put", key=key_of(ADDRESS), value=SIGNED["encoded"])["stored"] == [], (
        "under the key of another address"
    )
    assert envelope_at(ada, SIGNED["address"]) == "" and envelope_at(ada, ADDRESS) == ""
    put(js, SIGNED["key"], SIGNED["encoded"], at=ada)  # one mistake is no ban


def test_providers_are_found_in_both_directions(start_js: StartJs, start_node: StartNode) -> None:
    ada = start_node("ada")
    one, two = start_js("one"), start_js("two")
    for js in (one, two):
        join(js, ada)
    block_until(lambda: not one.do("provide", cid=CID)["failures"], what="a js node sends a provider record")

    def ada_names_one_and_its_address() -> bool:
        found = two.do("findProviders", cid=CID)["providers"]
        named = [each for each in found if (each["peer"], each["from"]) == (one.peer_id, ada.peer_id)]
        return any(one.address.startswith(address.split("/p2p/")[0]) for each in named for address in each["addresses"])

    block_until(ada_names_one_and_its_address, what="ada has taken the provider record, which nothing answers")


def test_a_js_node_finds_who_holds_a_content_by_its_cid(start_js: StartJs, start_node: StartNode) -> None:
    ada, js = start_node("ada"), start_js("one")
    join(js, ada)
    cid = ada.client.put(ADDRESS, b"named by its content").data["cid"]
    found = js.do("findProviders", cid=cid)["providers"]
    assert {(provider["peer"], provider["from"]) for provider in found} == {(ada.peer_id, ada.peer_id)}
    assert ada.multiaddrs[0].split("/p2p/")[0] in [address.split("/p2p/")[0] for address in found[0]["addresses"]]
    assert js.do("findProviders", cid=CID)["providers"] == [], "nobody holds it"


def test_two_nodes_that_know_a_js_node_alone_find_each_other(start_js: StartJs, start_node: StartNode) -> None:
    ada, bob, js = start_node("ada"), start_node("bob"), start_js("one")
    for node in (ada, bob):
        assert not connected(node)
        join(js, node)
    block_until(lambda: connected(ada) == [bob.peer_id], what="ada finds bob in the DHT", seconds=60.0)
    ada.client.put(ADDRESS, b"for bob")
    block_until(lambda: bob.client.get(ADDRESS).body == b"for bob", what="they are members of one swarm")


def test_js_and_our_node_survive_each_others_restarts(start_js: StartJs, start_node: StartNode) -> None:
    ada, js = start_node("ada"), start_js("one")
    join(js, ada)
    put(js, SIGNED["key"], SIGNED["encoded"], at=ada)

    ada.kill()
    ada.start(())
    ada.wait_ready()
    assert got_from(js, ada, SIGNED["key"]) == SIGNED["encoded"]

    js.kill()
    js = start_js("one", port=js.port)
    join(js, ada)
    assert got_from(js, ada, SIGNED["key"]) == SIGNED["encoded"], "it has forgotten its own copy"
