"""What a node runs on: network, store, clock and random numbers.

In a process that is libp2p, SQLite and the machine's clock (`node/process/run.py`); in the simulator it is memory, one
seed and one virtual clock.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from discovery.finder import Finder
from node.services.control.audit_file import AuditStorage, MemoryAuditStorage
from node.services.membership.this_node import ThisNode
from node.store.base import Store
from node.swarm.base import Network
from node.swarm.limits import USUAL, SwarmLimits
from node.swarm.peer_policy import PeerPolicy
from protocols.keys import PrivateKey
from protocols.policy.signature_cache import SignatureCache


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What a node runs on. `network` is None for the mock backend: no host, no socket."""

    key: PrivateKey
    network: Network | None
    store: Store
    now_ms: Callable[[], int]
    """The wall clock, Unix milliseconds. Deadlines run on trio's clock."""
    chance: Callable[[], float]
    """Draws from [0, 1)."""
    peer_policy: PeerPolicy = field(default_factory=PeerPolicy)
    """Which peers the node accepts; the network asks it too."""
    limits: SwarmLimits = USUAL
    audit_storage: AuditStorage = field(default_factory=MemoryAuditStorage)
    """Where the audit log is kept."""
    mdns: Callable[[ThisNode], Finder] | None = None
    """Makes the finder on the local network; None where there is none."""
    verified: SignatureCache = field(default_factory=SignatureCache)
    """The signatures that were checked; the nodes of one process may share it."""
