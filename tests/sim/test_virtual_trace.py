"""Under any faults the virtual network keeps its contract, and one seed replays exactly.

Run as a script, `python tests/sim/test_virtual_trace.py SEED` prints the trace of `chaos`, for a test to compare.
"""

import os
import random
import subprocess
import sys
from contextlib import AsyncExitStack

import pytest
import trio

from netsim.virtual.endpoint import VirtualEndpoint
from netsim.virtual.links import Link
from netsim.virtual.scheduler import chance, run_virtual
from netsim.virtual.trace import Trace
from node.swarm.base import DialFailed, Lane
from tests.sim.virtual_network import (
    ALPHA,
    BETA,
    ROOT,
    ReceiverNetwork,
    network_of,
    put,
    run_in_network,
)

PEERS = tuple(f"12D3KooWPeer{number}" for number in range(5))


async def chaos(seed: int, trace_of: list[Trace]) -> None:
    """Five nodes that dial and send under all faults, by a dozen tasks that race; then everything is healed."""
    rng = chance(seed, "chaos")
    link = Link(loss=0.02, duplication=0.02, reordering=0.05)
    async with network_of(seed, link=link) as network, AsyncExitStack():
        trace_of.append(network.trace)
        endpoints: dict[str, VirtualEndpoint] = {}

        async def work(peer: str, rng: random.Random) -> None:
            while trio.current_time() < 60:
                await trio.sleep(rng.random())
                endpoint, other = endpoints[peer], rng.choice(PEERS)
                if other in endpoint.connected_peers():
                    for _ in range(rng.randrange(8)):
                        endpoint.send(other, rng.choice(list(Lane)), rng.randbytes(rng.randrange(2000)))
                    if rng.random() < 0.1:
                        endpoint.disconnect(other, "tired")
                else:
                    try:
                        await endpoint.dial([network.net.address_of(other)], timeout=rng.random())
                    except DialFailed as error:
                        network.trace.note(network.net.name_of(peer), "dial-failed", error)

        async def inject_faults() -> None:
            net = network.net
            while trio.current_time() < 60:
                await trio.sleep(rng.random() * 2)
                one, other, *rest = rng.sample(PEERS, 5)
                match rng.randrange(7):
                    case 0:
                        net.partition([one, other], rest)
                    case 1:
                        net.cut(one, other)
                    case 2:
                        net.heal()
                    case 3:
                        net.freeze(one)
                    case 4:
                        net.thaw(one)
                    case 5:
                        network.crash(one)
                        await trio.sleep(rng.random())
                        endpoints[one] = await network.attach(one)
                    case 6:
                        net.set_link(Link(latency_seconds=rng.random() * 0.3), source=one, target=other)

        for peer in PEERS:
            endpoints[peer] = await network.attach(peer)
        async with trio.open_nursery() as nursery:
            for peer in PEERS:
                for number in range(3):
                    nursery.start_soon(work, peer, chance(seed, f"{peer}/{number}"))
            nursery.start_soon(inject_faults)
        await heal_and_check(network, endpoints)


async def heal_and_check(network: ReceiverNetwork, endpoints: dict[str, VirtualEndpoint]) -> None:
    """Without faults every node reaches every other one, and both sides of each connection agree."""
    network.net.heal()
    network.net.set_link(Link())
    for peer in PEERS:
        network.net.thaw(peer)
    await trio.sleep(5)
    for one in endpoints.values():
        for other in endpoints.values():
            if one is not other:
                assert await one.dial(other.addresses, timeout=5) == other.peer_id
                put(one, other.peer_id, [b"last"])
    await trio.sleep(5)
    for peer, endpoint in endpoints.items():
        receiver = network.receivers[peer]
        assert sorted(endpoint.connected_peers()) == sorted(receiver.peers) == sorted(set(PEERS) - {peer})
        assert all(receiver.frames[other][-1] == b"last" for other in receiver.peers)


def trace_of_chaos(seed: int) -> Trace:
    traces: list[Trace] = []
    run_virtual(seed, chaos, seed, traces, limit_seconds=3600)
    return traces[0]


@pytest.mark.parametrize("seed", range(12))
def test_under_any_faults_the_contract_holds_and_all_nodes_connect_after_healing(seed: int) -> None:
    assert len(trace_of_chaos(seed)) > 1000  # the receivers and `heal_and_check` have checked the rest


def test_one_seed_gives_one_trace_byte_for_byte_in_every_process() -> None:
    here = str(trace_of_chaos(4))
    assert here == str(trace_of_chaos(4))
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
        there = subprocess.run(
            [sys.executable, __file__, "4"], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert there.stdout == here


def test_another_seed_gives_another_trace() -> None:
    assert str(trace_of_chaos(4)) != str(trace_of_chaos(5))


def test_a_trace_line_is_time_node_event_and_facts() -> None:
    async def program(network: ReceiverNetwork) -> None:
        await network.pair()
        network.net.freeze(BETA)
        await trio.sleep(1)
        network.trace.note("n1", "wrote", b"\x01\xff", 0.25, 7)
        lines = list(network.trace.lines())
        assert lines[0] == f"0.000000 n1 listens /memory/1/p2p/{ALPHA}"
        assert lines[-2].endswith("net freeze n2")
        assert lines[-1].split(" ", 1)[1] == "n1 wrote 01ff 0.250000 7"
        assert str(network.trace).splitlines() == lines

    run_in_network(program)


def test_the_virtual_world_does_without_libp2p() -> None:
    code = "import sys, netsim.virtual.network, netsim.virtual.scheduler; sys.exit('libp2p' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


if __name__ == "__main__":
    sys.stdout.write(str(trace_of_chaos(int(sys.argv[1]))))
