"""The lookups of our DHT among js-libp2p nodes: one node of ours in this process, which knows one js node alone."""

import json
import random
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from benchmarks.js_node import JsNode
from node import app
from node.config.settings import Settings
from node.environment import Environment
from node.node import Node
from node.store.memory.store import MemoryStore
from node.swarm.kademlia.kademlia import Kademlia
from node.swarm.libp2p.host import Host
from protocols.cid import decode as digest_of
from protocols.kademlia.lookup_purposes import FirstValue, Providers
from protocols.kademlia.messages import Record
from protocols.keys import PrivateKey
from tests.interop.conftest import StartJs
from tests.live.swarm_peers import LOOPBACK
from tests.until import until

CID = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"
MULTIHASH = b"\x12\x20" + digest_of(CID)
VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "envelopes.json").read_text("utf-8"))
SIGNED: dict[str, Any] = VECTORS["envelopes"][0]
KEY: bytes = SIGNED["key"].encode()
ENCODED = bytes.fromhex(SIGNED["encoded"])


async def order(js: JsNode, do: str, **facts: Any) -> dict[str, Any]:
    """An order to a js node, which waits for its answer in a thread: our node is in this process, and answers it."""
    return await trio.to_thread.run_sync(partial(js.do, do, **facts))


def environment() -> Environment:
    key = PrivateKey.from_seed(bytes(range(32)))
    return Environment(
        key=key,
        network=Host(key, LOOPBACK),
        store=MemoryStore(log_id="0" * 16),
        now_ms=lambda: time.time_ns() // 1_000_000,
        chance=random.random,
    )


def peers_of(providers: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """Pairs of a provider and the peer that named it."""
    return {(provider["peer"], provider["from"]) for provider in providers}


async def joined(node: Node, near: JsNode, far: JsNode) -> Kademlia:
    """`near` knows `far` and our node, which has met no other; then the DHT of our node."""
    dht = node.kademlia
    assert dht is not None
    await order(far, "connect", address=near.address)
    await order(near, "connect", address=node.addresses()[0])
    await until(lambda: dht.routing.table.get(near.peer_id), what="our node takes the js node into its routing table")

    async def near_knows_both() -> bool:
        return {node.peer_id, far.peer_id} <= set((await order(near, "table"))["peers"])

    await until(near_knows_both, what="the js node has both in its routing table")
    return dht


@pytest.mark.deadline(240)
async def test_peers_values_and_providers_of_js_nodes_are_found(start_js: StartJs) -> None:
    near, far = await trio.to_thread.run_sync(start_js, "near"), await trio.to_thread.run_sync(start_js, "far")
    async with trio.open_nursery() as nursery:
        node: Node = await nursery.start(app.run, environment(), Settings(name="ours"))
        dht = await joined(node, near, far)

        async def far_is_found() -> bool:
            found = await dht.lookups.find_peer(far.peer_id)
            return found is not None and far.address in found.addresses

        async def both_keep_the_value() -> bool:
            return await dht.lookups.put_value(Record(KEY, ENCODED)) == 2

        async def the_value_is_found() -> bool:
            purpose = FirstValue(lambda value: value == ENCODED)
            await dht.lookups.get_value(KEY, purpose)
            return purpose.peer in (near.peer_id, far.peer_id)

        async def far_is_a_provider() -> bool:
            providers = Providers(20)
            await dht.lookups.find_providers(MULTIHASH, providers)
            return far.peer_id in providers.found

        async def far_provides() -> bool:
            return not (await order(far, "provide", cid=CID))["failures"]

        async def both_know_this_provider() -> bool:
            return await dht.provide(MULTIHASH, timeout=10.0) == 2

        # A js node that has no turn of the processor for seconds counts as silent: then the same is asked again.
        await until(far_is_found, what="our node finds far through near")
        await until(both_keep_the_value, what="both js nodes keep the value")
        assert (await order(far, "get", key=SIGNED["key"]))["value"] == SIGNED["encoded"]
        await until(the_value_is_found, what="our node gets the value from a js node")

        await until(far_provides, what="far sends a provider record")
        await until(far_is_a_provider, what="near has taken the provider record, which nothing answers")

        await until(both_know_this_provider, what="both js nodes have taken the provider record")
        named = peers_of((await order(far, "findProviders", cid=CID))["providers"])
        assert (node.peer_id, far.peer_id) in named, "an answer to the ping behind the record says that it was taken"
        nursery.cancel_scope.cancel()
