"""Node: the interface of a running node for the API, the command line and the simulator."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from discovery.finder import Finder
from node.dht.circuit_breaker import CircuitBreaker
from node.dht.dispatch import DispatchDHT
from node.metrics import Meters
from node.services.control.audit import Audit
from node.services.control.capability_store import CapabilityStore
from node.services.control.flag_store import FlagStore
from node.services.membership.directory import Directory
from node.services.membership.peer_list import PeerList, PeerStatus
from node.services.observe.health import HealthMonitor
from node.services.observe.health_report import HealthReport
from node.services.reads.resolver import Resolver
from node.services.replication.at_risk import RiskMonitor
from node.services.replication.replicator import Replicator
from node.services.writes.admission import Admission
from node.services.writes.author import Author
from node.services.writes.receipts import Receipts
from node.store.base import Store
from node.swarm.base import Network
from node.swarm.kademlia.kademlia import Kademlia
from node.swarm.members import Members
from node.swarm.peer_policy import PeerPolicy
from protocols.errors import Conflict, NotFound


@dataclass(kw_only=True, eq=False)
class Node:
    """Made by `app.run`, and used while that runs. `network`, `breaker`, `replicator` and `kademlia` are None on the
    mock backend."""

    peer_id: str
    name: str
    network_name: str
    is_private: bool
    """Whether only nodes with the key of its network can join."""
    started_ms: int
    dht: DispatchDHT
    author: Author
    receipts: Receipts
    """Of its writes, as they are now."""
    admission: Admission
    """Where the writes of callers wait for their turn."""
    resolver: Resolver
    store: Store
    members: Members
    peer_list: PeerList
    monitor: HealthMonitor
    """Observes the components, and makes the health report."""
    risk: RiskMonitor
    """Knows which addresses have fewer replicas than they should."""
    replicator: Replicator | None
    """Feeds other holders with what others wrote."""
    finders: tuple[Finder, ...]
    """How it finds others."""
    network: Network | None
    breaker: CircuitBreaker | None
    kademlia: Kademlia | None
    """The DHT among peers of any kind."""
    peer_policy: PeerPolicy
    """The allow list and the deny list, which may change while the node runs, and what peers did wrong."""
    flags: FlagStore
    audit: Audit
    capabilities: CapabilityStore
    """What this node offers."""
    directory: Directory
    """What all nodes offer."""
    meters: Meters | None
    """The registry of the parts' metrics; None when metrics are off."""
    now_ms: Callable[[], int]
    forget_member: Callable[[str], None]
    """Removes a member from memory: of its connections and targets too, where there is a swarm."""
    leave: Callable[[], Awaitable[None]]
    """Tells the others that this node ends now; it does not wait for them."""

    def addresses(self) -> tuple[str, ...]:
        """The addresses at which peers can dial this node; () on the mock backend."""
        return self.network.addresses if self.network else ()

    def peers(self) -> list[PeerStatus]:
        """Every other node that this one knows of, the connected ones first."""
        return self.peer_list.all()

    async def retry_quarantined(self, *, author: str, reason: str) -> int:
        """Make every hint in quarantine due again, and return their number; an entry of the audit log says who did it.

        Raises `StorageFull` or `Unavailable`.
        """
        if refused := self.store.pending().refused:
            await self.audit.append("hints.retried", author=author, reason=reason, details={"hints": refused})
        return await self.store.retry_quarantined()

    async def forget_peer(self, peer: str, *, author: str, reason: str) -> tuple[PeerStatus, int]:
        """Remove a member that is away; return it as it was, and how many hints there were for it.

        Its hints go to the members that should hold in its place. When it comes back it is a new member. An entry of
        the audit log says who did it. Raises `NotFound`, `Conflict` for a member that is here, `StorageFull` or
        `Unavailable`.
        """
        status = next((each for each in self.peers() if each.peer == peer and each.is_member), None)
        if status is None:
            raise NotFound(f"this node knows no member {peer:.100}; GET /v1/peers lists them", peer_id=peer[:100])
        if status.is_connected and not status.is_suspect:
            raise Conflict(
                f"{status.name or peer} is connected, and would be a member again at once; end it first, or keep it "
                "out with the setting 'deny'",
                peer_id=peer,
            )
        hints = self.store.hint_totals().get(peer, 0)
        await self.audit.append(
            "member.forgotten", author=author, reason=reason, details={"peer": peer, "name": status.name, "owed": hints}
        )
        await self.store.forget_member(peer)
        self.forget_member(peer)
        return status, hints

    def counters(self) -> Mapping[str, int]:
        """By name: how often each limit was hit since the start, and how much was refused from peers."""
        return self.peer_policy.limit_counters.counts.as_dict()

    def health(self) -> HealthReport:
        """The health report as of now."""
        return self.monitor.report()
