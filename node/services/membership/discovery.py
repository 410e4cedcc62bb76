"""The parts of a node that find other nodes: the finders, each behind its flag, and the neighbours they report to."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from discovery.announce import AnnounceFinder
from discovery.api import ApiFinder
from discovery.dht import ProviderDHT, RendezvousFinder
from discovery.finder import Finder
from discovery.manual import ManualFinder
from node.config.flags import Flags
from node.config.settings import Settings
from node.services.membership.announce_swarm import PubSubAnnounceSwarm
from node.services.membership.finder_switch import FinderSwitch
from node.services.membership.log_continuity import LogContinuity
from node.services.membership.neighbours import Neighbours
from node.services.membership.store_finder import StoreFinder
from node.services.membership.this_node import ThisNode
from node.store.base import Store
from node.swarm.members import Members
from node.swarm.rpc import Rpc
from protocols.capabilities import Capability
from protocols.keys import PrivateKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What these parts work with. `flags` are those in force, `flags_changed` waits for others."""

    key: PrivateKey
    this_node: ThisNode
    settings: Settings
    rpc: Rpc
    members: Members
    store: Store
    log_continuity: LogContinuity
    knows_hints: Callable[[str], bool]
    """Whether a peer has its hints for all that it should get from this node."""
    capabilities: Callable[[], Sequence[Capability]]
    flags: Callable[[], Flags]
    flags_changed: Callable[[], Awaitable[None]]
    on_sign_of_life: Callable[[str], None]
    on_foreign: Callable[[str], None]
    """Called with each peer of another swarm."""
    contacts: Callable[[], int]
    """Counts the peers in the routing table of the DHT."""
    now_ms: Callable[[], int]
    chance: Callable[[], float]
    mdns: Callable[[ThisNode], Finder] | None
    """Makes the finder on the local network, where there is one."""

    @property
    def forget_seconds(self) -> float:
        """After how long a peer that was not seen is forgotten."""
        return self.settings.forget_after_hours * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """The parts, complete."""

    announce: AnnounceFinder
    finders: tuple[Finder, ...]
    neighbours: Neighbours


def discovery_of(of: Surroundings, dht: ProviderDHT) -> Discovery:
    """Make the parts; `neighbours` is to be run."""
    settings, this_node = of.settings, of.this_node
    announce = AnnounceFinder(
        of.key,
        this_node,
        PubSubAnnounceSwarm(of.rpc.network.pubsub, of.members, of.rpc.peer_policy),
        capabilities=of.capabilities,
        now_ms=of.now_ms,
        chance=of.chance,
        is_on=lambda: of.flags().discovery_announce,
    )
    apis = [node for node in settings.bootstrap if not node.startswith("/")]
    api = ApiFinder(apis, own=this_node.peer_id, network=this_node.network, chance=of.chance)
    finders = tuple(
        FinderSwitch(finder, is_on, of.flags_changed) for finder, is_on in _finders(of, this_node, announce, api, dht)
    )
    neighbours = Neighbours(
        rpc=of.rpc,
        members=of.members,
        store=of.store,
        this_node=this_node,
        forget_seconds=of.forget_seconds,
        finders=finders,
        announce=announce,
        now_ms=of.now_ms,
        chance=of.chance,
        on_sign_of_life=of.on_sign_of_life,
        log_continuity=of.log_continuity,
        knows_hints=of.knows_hints,
        may_exchange=lambda: of.flags().discovery_exchange,
        on_foreign=of.on_foreign,
        on_moved=api.moved,
    )
    return Discovery(announce=announce, finders=finders, neighbours=neighbours)


def _finders(
    of: Surroundings, this_node: ThisNode, announce: AnnounceFinder, api: ApiFinder, dht: ProviderDHT
) -> list[tuple[Finder, Callable[[], bool]]]:
    """Each finder, and whether it may run now."""
    addresses = [node for node in of.settings.bootstrap if node.startswith("/")]
    rendezvous = RendezvousFinder(
        dht,
        this_node,
        capabilities=of.capabilities,
        reachable=lambda: len(of.members.answering()),
        contacts=of.contacts,
        changed=of.members.changed,
        chance=of.chance,
        provide_seconds=of.settings.provider_interval_hours * 3600.0,
    )
    stored = StoreFinder(of.members, forget_seconds=of.forget_seconds, now_ms=of.now_ms)
    finders: list[tuple[Finder, Callable[[], bool]]] = [
        (stored, lambda: of.flags().discovery_store),
        (ManualFinder(addresses), lambda: of.flags().discovery_manual),
        (api, lambda: of.flags().discovery_api),
        (announce, lambda: of.flags().discovery_announce),
        (rendezvous, lambda: of.flags().discovery_dht),
    ]
    if of.mdns is not None:
        finders.append((of.mdns(this_node), lambda: of.flags().discovery_mdns))
    return finders
