"""The DHT of one node, put together: server, client, routing table and lookups over the network's `Kad`."""

from collections.abc import Callable

from node.swarm.base import Network
from node.swarm.kademlia.announcer import ProviderAnnouncer
from node.swarm.kademlia.client import KademliaClient
from node.swarm.kademlia.contacts import Contacts
from node.swarm.kademlia.lookups import Lookups
from node.swarm.kademlia.provider_book import ProviderBook
from node.swarm.kademlia.routing import Routing
from node.swarm.kademlia.server import KademliaServer, Records
from node.swarm.peer_policy import PeerPolicy
from protocols.kademlia.contact import Contact


class Kademlia:
    """Made before the network runs; `run` runs while it does."""

    def __init__(
        self,
        network: Network,
        records: Records,
        providers: ProviderBook,
        peer_policy: PeerPolicy,
        *,
        chance: Callable[[], float],
        is_here: Callable[[str], bool],
        own_addresses: Callable[[str], tuple[str, ...]],
        addresses_of: Callable[[str], tuple[str, ...]],
    ) -> None:
        """`is_here` says whether an address is one of this machine, `own_addresses` are those of this node to tell a
        peer that is at an address, `addresses_of` those of a member."""
        own = network.peer_id
        self.providers = providers
        self.client = KademliaClient(network.kad, peer_policy, may_ask=lambda peer: not peer_policy.complaint(peer))
        self.routing = Routing(
            own,
            self.client,
            chance=chance,
            may_enter=lambda peer: peer != own and not peer_policy.complaint(peer),
            may_dial=lambda address: not network.address_fault(address),
        )
        self.contacts = Contacts(
            own, self.routing.table, is_here=is_here, own_addresses=own_addresses, addresses_of=addresses_of
        )
        self.server = KademliaServer(
            self.contacts,
            records,
            providers,
            peer_policy,
            on_found=self.routing.found,
            on_stopped=self.routing.stopped,
            on_heard=self.routing.heard,
        )
        self.lookups = Lookups(own, self.routing, self.client)
        self.announcer = ProviderAnnouncer(
            self.routing,
            self.lookups,
            self.client,
            own_for=lambda peer: self.contacts.own_for(peer.addresses[0] if peer.addresses else ""),
        )
        network.kad.attach(self.server)
        self._peer_policy = peer_policy
        peer_policy.on_forfeit(lambda peer, why: self._forfeited(peer))
        peer_policy.on_lists_changed(self.routing.recheck)

    def _forfeited(self, peer: str) -> None:
        """A peer lost its connections for what it did, or is banned."""
        self.routing.ban(peer)
        if self._peer_policy.complaint(peer):
            self.providers.records.forget(peer)

    async def provide(self, key: bytes, *, timeout: float) -> int:
        """Say that this node provides a key: here, and to the nearest peers; returns how many of them took it in
        time."""
        self.providers.add(key, Contact(self.contacts.own))
        return await self.announcer.announce((key,), timeout=timeout)

    async def run(self) -> None:
        """Keep the routing table until cancelled."""
        await self.routing.run(self.lookups.refresh)
