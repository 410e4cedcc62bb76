"""The inspection of a virtual swarm: what its nodes hold, and whether all has settled."""

from collections.abc import Mapping

from netsim.history import FinalState, ShownVersion, short_digest
from netsim.virtual.client import shown_version
from netsim.virtual.disk import Disk
from netsim.virtual.nodes import VirtualSwarm
from netsim.workload import address_of, key_names
from node.dht.base import Consistency
from node.node import Node
from protocols.placement import nearest
from protocols.policy.breaker import BreakerState
from protocols.ucxl import parse

LOCAL = Consistency.LOCAL


class VirtualInspection:
    """Over one swarm. `disks` has the disk that each machine has now; `keys` is how many keys clients use."""

    def __init__(self, swarm: VirtualSwarm, disks: Mapping[str, Disk], *, keys: int, replication: int) -> None:
        self._swarm = swarm
        self._disks = disks
        self._keys = key_names(keys)
        self._replication = replication
        self._names = {machine.peer: name for name, machine in swarm.nodes.items()}

    def name_of(self, peer: str) -> str:
        """The node's name; the peer id of a peer that is no node."""
        return self._names.get(peer, peer)

    def holders(self, key: str) -> tuple[str, ...]:
        """The nodes that should hold a key, of all that run now."""
        peers = [self._swarm[name].peer for name in self._with_network()]
        return tuple(map(self.name_of, nearest(address_of(key).key, peers, self._replication)))

    async def final_state(self, name: str, at: float) -> FinalState:
        machine = self._swarm[name]
        node, store = machine.running, machine.running.store
        addresses = sorted({change.address for change in await store.log(after=0, limit=store.last_sequence)})
        heads: dict[str, tuple[str, ...]] = {}
        versions: dict[str, tuple[ShownVersion, ...]] = {}
        reissued: dict[str, str] = {}
        for address in addresses:
            key_name, key = address.rpartition("/")[2], parse(address).key
            heads[key_name] = tuple(short_digest(head.digest) for head in await store.heads(key))
            listed = await store.versions(key, limit=1_000_000)
            known = [await store.by_digest(version.digest) for version in listed]
            versions[key_name] = tuple(shown_version(item, self.name_of) for item in known if item is not None)
            replaced = {version.digest: version.reissued_as for version in listed}
            reissued |= {short_digest(old): short_digest(new) for old, new in replaced.items() if new is not None}
        return FinalState(
            at=at,
            node=name,
            backend=machine.settings.backend,
            heads=heads,
            versions=versions,
            reissued=reissued,
            hints=sum(self._hint_counts(node).values()),
            quarantined=store.pending().refused,
            breaker=str(node.breaker.state) if node.breaker else str(BreakerState.CLOSED),
        )

    # -- whether all has settled ------------------------------------------------------------------------------

    async def unsettled(self) -> str:
        """What has not settled yet, in words, or ''."""
        nodes = self._with_network()
        for name, node in nodes.items():
            if self._disks[name].is_committing:
                return f"the disk of {name} has a commit under way"
            if hint_counts := self._hint_counts(node):
                counts = ", ".join(f"{count} for {other}" for other, count in hint_counts.items())
                return f"{name} has hints left: {counts}"
            if unfed := self._unfed(node, nodes):
                return f"{name} has not asked {', '.join(unfed)} yet which versions of others it lacks"
            if node.breaker is not None and not node.breaker.is_closed:
                return f"the breaker of {name} is {node.breaker.state} ({node.breaker.why})"
        return self.unconnected() or await self._unequal(nodes)

    def unconnected(self) -> str:
        """A node that neither is connected with another one nor can dial it when it wants it, in words, or ''."""
        nodes = self._with_network()
        peers = {self._swarm[name].peer: name for name in nodes}
        for name, node in nodes.items():
            reached = {p.peer for p in node.peers() if p.state in ("connected", "idle")}
            for peer, other in peers.items():
                if other != name and peer not in reached:
                    return f"{name} does not reach {other}"
        return ""

    def _with_network(self) -> dict[str, Node]:
        """The nodes that run and have a network, by name."""
        return {
            name: machine.node
            for name, machine in self._swarm.nodes.items()
            if machine.node is not None and machine.has_network
        }

    def _hint_counts(self, node: Node) -> dict[str, int]:
        """How many hints a node has for each node that runs. Hints for a node that is gone wait for its return."""
        running = self._with_network()
        hint_counts = {self.name_of(peer): count for peer, count in node.store.hint_counts().items()}
        return {name: count for name, count in hint_counts.items() if name in running}

    def _unfed(self, node: Node, nodes: dict[str, Node]) -> list[str]:
        """The nodes that run and that a node feeds, and has not asked for all that is in its log."""
        if node.replicator is None:
            return []
        unfed = node.replicator.unfed(node.store.last_sequence)
        return [name for name in map(self.name_of, unfed) if name in nodes]

    async def _unequal(self, nodes: dict[str, Node]) -> str:
        for key in self._keys:
            holders = [name for name in self.holders(key) if name in nodes]
            here = {name: await nodes[name].dht.get(address_of(key).key, consistency=LOCAL) for name in holders}
            heads = {name: [head.digest for head in answer.heads] for name, answer in here.items()}
            for name in holders[1:]:
                if heads[name] != heads[holders[0]]:
                    return f"{holders[0]} and {name} have different heads of {key}"
        return ""
