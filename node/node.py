"""A node as the outside sees it: what the API, the command line and the simulator may ask of one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from node.dht.call_health import CallHealth
from node.dht.circuit_breaker import CircuitBreaker
from node.dht.dispatch import DispatchDHT
from node.metrics import Meters
from node.services.control.audit import Audit
from node.services.control.flag_store import FlagStore
from node.services.observe.health import HealthMonitor, HealthReport
from node.services.reads.resolver import Resolver
from node.services.writes.author import Author
from node.store.base import Store
from node.swarm.base import Network
from node.swarm.members import Members
from node.swarm.peer_policy import PeerPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerStatus:
    """One member, as this node sees it."""

    peer: str
    name: str
    addresses: tuple[str, ...]
    is_connected: bool
    is_suspect: bool
    last_seen_ms: int
    owed: int
    """Writes of this node that it is still to get."""
    clock_offset_ms: float | None
    """How far its clock is ahead of ours."""
    round_trip_ms: float | None


class Node:
    """Made by `app.run`; lives as long as that runs. `breaker` and `network` are None on the mock backend."""

    def __init__(
        self,
        *,
        peer_id: str,
        name: str,
        network_name: str,
        started_ms: int,
        dht: DispatchDHT,
        author: Author,
        resolver: Resolver,
        store: Store,
        members: Members,
        health: HealthMonitor,
        requests: CallHealth,
        network: Network | None,
        breaker: CircuitBreaker | None,
        peer_policy: PeerPolicy,
        flags: FlagStore,
        audit: Audit,
        meters: Meters | None,
        now_ms: Callable[[], int],
    ) -> None:
        self.peer_id = peer_id
        self.name = name
        self.network = network_name
        self.started_ms = started_ms
        self.dht = dht
        self.author = author
        self.resolver = resolver
        self.store = store
        self.now_ms = now_ms
        self.breaker = breaker
        self.peer_policy = peer_policy
        """The allow list and the deny list, which may be changed while it runs, and what became of bad input."""
        self.flags = flags
        self.audit = audit
        self.meters = meters
        """Where whoever counts something registers; None when metrics are off."""
        self.watch = health
        """What keeps an eye on the components; runs beside the node."""
        self.requests = requests
        """The API's: whoever answers them tells how they ended."""
        self._members = members
        self._network = network

    def addresses(self) -> tuple[str, ...]:
        """Where others can dial this node; () on the mock backend."""
        return self._network.addresses if self._network else ()

    def peers(self) -> list[PeerStatus]:
        """Every member known, those that are connected first."""
        hint_counts = self.store.hint_counts()
        peers = [
            PeerStatus(
                peer=p.member.peer,
                name=p.member.name,
                addresses=p.member.addresses,
                is_connected=p.is_connected,
                is_suspect=p.is_suspect,
                last_seen_ms=self.now_ms() if p.is_connected and not p.is_suspect else p.member.last_seen_ms,
                owed=hint_counts.get(p.member.peer, 0),
                clock_offset_ms=p.clock_offset_ms,
                round_trip_ms=None if p.round_trip_seconds is None else p.round_trip_seconds * 1000.0,
            )
            for p in self._members.all()
        ]
        return sorted(peers, key=lambda p: (not p.is_connected, p.name, p.peer))

    def counters(self) -> Mapping[str, int]:
        """How often each limit was hit since the start, and what was refused from peers, by name."""
        return self.peer_policy.watch.counters.as_dict()

    def health(self) -> HealthReport:
        return self.watch.report()

    def is_ready(self) -> bool:
        """Whether calls are answered: true as soon as the node runs, whatever the swarm does."""
        return True
