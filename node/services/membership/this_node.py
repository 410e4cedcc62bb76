"""This node, as others are told of it: its name, and the addresses at which they can dial it now."""

import trio

from node.swarm.base import Network
from node.version import agent
from protocols.messages import ADDRESSES_MAX
from protocols.policy.own_addresses import AddressRules, OwnAddresses


class ThisNode:
    """The `AdvertisedNode` of the finders and the greetings. It follows the addresses of the network while it runs."""

    def __init__(
        self,
        network: Network,
        *,
        name: str,
        network_name: str,
        rules: AddressRules,
    ) -> None:
        """`rules` are the operator's, on the addresses to tell."""
        self.peer_id = network.peer_id
        self.name = name
        self.network = network_name
        self.agent = agent()
        self._network = network
        self._own = OwnAddresses(network.peer_id, rules)
        self._advertised: tuple[str, ...] = ()
        self._changed = trio.Event()

    def addresses(self, *, on_this_machine: bool = False) -> tuple[str, ...]:
        self._look()
        return self._own.advertised(on_this_machine=on_this_machine)[:ADDRESSES_MAX]

    def addresses_for(self, remote: str) -> tuple[str, ...]:
        """The addresses to tell a peer that is connected from, or at, this address."""
        return self.addresses(on_this_machine=self.is_here(remote))

    def is_here(self, address: str) -> bool:
        """Whether an address at the other end of a connection is one of this machine."""
        self._look()
        return self._own.is_this_machine(address)

    def is_own(self, address: str) -> bool:
        """Whether an address leads to this node itself."""
        self._look()
        return self._own.is_own(address)

    def observe(self, peer: str, address: str, *, dialled: bool) -> None:
        """A peer says at which address it sees this node; `dialled`: this node dialled that peer."""
        if not self._network.address_fault(address):
            self._own.observe(peer, address, dialled=dialled)
            self._compare()

    def forget(self, peer: str) -> None:
        """A peer is gone, and with it what it saw."""
        self._own.forget(peer)
        self._compare()

    async def changed(self) -> None:
        """Wait until others are to be told other addresses than before."""
        await self._changed.wait()

    def notify_changed(self) -> None:
        """Something that others are told has changed: wake all that wait in `changed`."""
        self._changed.set()
        self._changed = trio.Event()

    async def run(self) -> None:
        """Follow the addresses of the network until cancelled."""
        while True:
            self._look()
            self._compare()
            await self._network.addresses_changed()

    def _look(self) -> None:
        self._own.listen(self._network.addresses)

    def _compare(self) -> None:
        advertised = self.addresses()
        if advertised != self._advertised:
            self._advertised = advertised
            self.notify_changed()
