"""Discovery: how soon ten nodes of a LAN know each other by mDNS, and what they cost while nothing happens.

On a LAN of network namespaces, with whole nodes; where this machine cannot make one, on loopback, with the mDNS finders
of ten nodes in this process.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import psutil
import trio

from benchmarks.figures import Bound, Figure
from discovery.announce import HEARTBEAT_SECONDS
from discovery.interfaces import Interface
from discovery.mdns_finder import MdnsFinder
from netsim.durations import percentile
from netsim.lan.capture import FrameKind, capture
from netsim.lan.namespace import LanUnavailable
from netsim.lan.node import LanNode
from netsim.lan.site import Lan, Site, open_site
from protocols.keys import PrivateKey
from protocols.policy.sighting import Sighting, Source

NODES = 10
KNOWN_SECONDS = 2.0
ANNOUNCED_TO_SECONDS = 0.5
CHANGED_SECONDS = 1.0
_NO_EXCHANGE = {"BZZZ_DISCOVERY_EXCHANGE": "false"}
IDLE_SECONDS = 250.0
"""Two pauses between questions of mDNS, and eight between health probes."""
SETTLE_SECONDS = 10.0
ANNOUNCED_SECONDS = 10.0
"""In which ten nodes announce themselves, one after the other, and all have heard of it."""
LOOK_SECONDS = 0.02
GIVE_UP_SECONDS = 60.0


def run() -> list[Figure]:
    try:
        site = open_site()
    except LanUnavailable as error:
        print(f"no LAN can be made here ({error}): on loopback instead", file=sys.stderr)
        return trio.run(_on_loopback)
    with site, tempfile.TemporaryDirectory(prefix="bzzz-bench-") as folder:
        return _on_lan(site, Path(folder))


def _on_lan(site: Site, folder: Path) -> list[Figure]:
    lan = site.lan(ip6=True)
    nodes = [LanNode(site.host(f"n{number}", lan), folder) for number in range(NODES)]
    for node in nodes:
        node.start(environment=_NO_EXCHANGE)
    for node in nodes:
        node.wait_ready()
    together = _seconds_until(nodes, lambda node: len(node.connected()) == NODES - 1)
    for node in nodes:
        node.change("PATCH", "/v1/flags", {"discovery_exchange": True})
    return [
        _figure("LAN of 10 nodes started together: from the last one ready until each knows all", together, "s"),
        *_idle(lan, nodes),
        *_changes(nodes),
        *_newcomers(nodes, "a newcomer from ready until it is connected with all, by mDNS", KNOWN_SECONDS),
        *_newcomers(
            nodes, "a newcomer with one known peer, no mDNS, until it knows all", ANNOUNCED_TO_SECONDS, nodes[0]
        ),
    ]


def _idle(lan: Lan, nodes: Sequence[LanNode]) -> list[Figure]:
    """What nodes cost while nothing happens."""
    time.sleep(SETTLE_SECONDS)
    processes = [psutil.Process(node.pid) for node in nodes]
    before = sum(sum(process.cpu_times()[:2]) for process in processes)
    idle = capture(lan, IDLE_SECONDS)
    cpu = (sum(sum(process.cpu_times()[:2]) for process in processes) - before) / NODES / IDLE_SECONDS
    mdns, links = idle[FrameKind.MDNS] / IDLE_SECONDS, 2 * idle[FrameKind.SWARM] / NODES / IDLE_SECONDS
    announcements = _announcement_bytes(lan, nodes, links) / HEARTBEAT_SECONDS
    return [
        _figure("10 idle nodes: mDNS sent and received, a node", mdns, "bytes/s"),
        _figure("10 idle nodes: pings, probes and the DHT, sent and received, a node", links, "bytes/s"),
        _figure("10 idle nodes: announcements at each heartbeat, the same", announcements, "bytes/s"),
        _figure("10 idle nodes: all of that", mdns + links + announcements, "bytes/s", 1_000.0),
        _figure("10 idle nodes: CPU of a whole node", cpu * 100.0, "%", 1.0),
    ]


def _changes(nodes: Sequence[LanNode]) -> list[Figure]:
    """How soon all nodes know that one of them offers something else."""
    seconds: list[float] = []
    for number, node in enumerate(nodes):
        label = f"label:change{number}"
        node.change("PUT", "/v1/capabilities", {"capabilities": [label]})
        seconds.append(_seconds_until(nodes, partial(_is_offered, label)))
    return _two("10 nodes: a changed capability is known everywhere", seconds, CHANGED_SECONDS)


def _is_offered(capability: str, node: LanNode) -> bool:
    return bool(node.get(f"/v1/services?capability={capability}")["services"])


def _newcomers(nodes: Sequence[LanNode], what: str, most: float, known: LanNode | None = None) -> list[Figure]:
    """How soon each node knows the others when it comes with a new identity: those of the swarm by mDNS, or `known`."""
    seconds: list[float] = []
    for node in nodes:
        if node is known:
            continue
        node.stop()
        node.wipe()
        options = () if known is None else ("--no-mdns", "--bootstrap", known.address_on(known.host.ip4))
        node.start(*options, environment={} if known else _NO_EXCHANGE)
        node.wait_ready()
        others = {other.peer_id for other in nodes if other is not node}
        states = ("connected",) if known is None else ("connected", "suspect", "known")
        seconds.append(_seconds_until([node], lambda node: others <= _listed(node, states)))  # noqa: B023
    return _two(f"LAN of 10 nodes: {what}", seconds, most)


def _listed(node: LanNode, states: Sequence[str]) -> set[str]:
    return {peer["peer_id"] for peer in node.get("/v1/peers")["peers"] if peer["state"] in states}


def _two(what: str, seconds: Sequence[float], most: float) -> list[Figure]:
    return [
        _figure(f"{what}, p50", percentile(seconds, 0.5), "s"),
        _figure("the same, p95", percentile(seconds, 0.95), "s", most),
    ]


def _announcement_bytes(lan: Lan, nodes: Sequence[LanNode], idle: float) -> float:
    """What a node sends and receives beside the `idle` bytes a second, when each of the nodes announces itself once."""
    began = time.monotonic()
    with ThreadPoolExecutor(1) as thread:
        captured = thread.submit(capture, lan, ANNOUNCED_SECONDS)
        for node in nodes:
            node.change("PUT", "/v1/capabilities", {"capabilities": ["label:bench"]})
        size = 2 * captured.result()[FrameKind.SWARM] / NODES
    return size - idle * (time.monotonic() - began)


def _seconds_until(nodes: Sequence[LanNode], is_so: Callable[[LanNode], bool]) -> float:
    """The seconds until that holds for each of the nodes, to a look at each."""
    started = time.monotonic()
    for node in nodes:
        while not is_so(node):
            if time.monotonic() - started > GIVE_UP_SECONDS:
                raise RuntimeError(f"{node.name} knows {sorted(node.connected())} after {GIVE_UP_SECONDS:g} s")
            time.sleep(LOOK_SECONDS)
    return time.monotonic() - started


# -- on loopback ------------------------------------------------------------------------------------------------------


class _Node:
    """What a node would tell, and what its finder sees."""

    name, agent = "bench", "bench"

    def __init__(self, network: str, number: int) -> None:
        self.peer_id = PrivateKey.from_seed(os.urandom(32)).peer_id
        self.network = network
        self.seen: set[str] = set()
        self._host = f"192.0.2.{number + 1}"

    def capabilities(self) -> tuple[str, ...]:
        return ()

    def addresses(self, *, on_this_machine: bool = False) -> tuple[str, ...]:
        return (f"/ip4/{self._host}/tcp/4001/p2p/{self.peer_id}",)

    async def changed(self) -> None:
        await trio.sleep_forever()

    def saw(self, sighting: Sighting) -> None:
        self.seen.add(sighting.peer)

    def lost(self, peer: str, source: Source) -> None:
        self.seen.discard(peer)


async def _on_loopback() -> list[Figure]:
    loopback = (Interface(name="lo", index=1, ip4="127.0.0.1"),)
    network = f"bench-{os.urandom(4).hex()}"
    nodes = [_Node(network, number) for number in range(NODES)]
    seconds: list[float] = []
    async with trio.open_nursery() as nursery:
        for node in nodes:
            finder = MdnsFinder(node, instance=os.urandom(16).hex(), chance=_chance, interfaces=lambda _: loopback)
            nursery.start_soon(finder.run, node)
        started = trio.current_time()
        waiting = list(nodes)
        while waiting and trio.current_time() - started < GIVE_UP_SECONDS:
            await trio.sleep(LOOK_SECONDS / 10)
            seconds += [trio.current_time() - started for node in waiting if len(node.seen) == NODES - 1]
            waiting = [node for node in waiting if len(node.seen) < NODES - 1]
        nursery.cancel_scope.cancel()
    seconds += [GIVE_UP_SECONDS] * len(waiting)
    return [_figure("10 finders on loopback: from the start until one sees all, p95", percentile(seconds, 0.95), "s",
                    KNOWN_SECONDS)]  # fmt: skip


def _chance() -> float:
    return int.from_bytes(os.urandom(4), "big") / 2**32


def _figure(what: str, value: float, unit: str, most: float | None = None) -> Figure:
    bound = Bound.NONE if most is None else Bound.AT_MOST
    return Figure(bench="discovery", what=what, value=value, unit=unit, bound=bound, target=most)
