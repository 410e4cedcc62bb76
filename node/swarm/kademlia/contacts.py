"""The contacts that this node gives to a peer that asks, with addresses that can be of use to it."""

from collections.abc import Callable
from typing import Protocol

from protocols.kademlia.contact import Contact
from protocols.kademlia.messages import CONTACTS_MAX
from protocols.policy.address_scope import Scope, ip_of, scope_of


class Nearest(Protocol):
    """The routing table, as it is read here."""

    def closest(self, place: int, n: int) -> tuple[Contact, ...]: ...

    def get(self, peer: str) -> Contact | None: ...


class Contacts:
    """`is_here` says whether an address is one of this machine, `own_addresses` are those of this node to tell a peer
    that is at an address."""

    def __init__(
        self,
        own: str,
        nearest: Nearest,
        *,
        is_here: Callable[[str], bool],
        own_addresses: Callable[[str], tuple[str, ...]],
        addresses_of: Callable[[str], tuple[str, ...]] = lambda _: (),
    ) -> None:
        """`addresses_of` gives the addresses of a peer that is not in the table, () when none is known."""
        self.own = own
        self._nearest = nearest
        self._is_here = is_here
        self._own_addresses = own_addresses
        self._addresses_of = addresses_of

    def closest_for(self, asker: str, remote: str, place: int) -> tuple[Contact, ...]:
        """The contacts nearest to a place for a peer that asks from the address `remote`."""
        found = (each for each in self._nearest.closest(place, CONTACTS_MAX + 1) if each.peer != asker)
        return tuple(self._for(remote, each) for each in found)[:CONTACTS_MAX]

    def contact_for(self, remote: str, contact: Contact) -> Contact:
        """One peer, or this node, for a peer that asks; without addresses when none can be told."""
        if contact.peer == self.own:
            return self.own_for(remote)
        return self._for(remote, self.proved(contact))

    def own_for(self, remote: str) -> Contact:
        """This node, for a peer that is at an address."""
        return Contact(self.own, self._own_addresses(remote))

    def proved(self, contact: Contact) -> Contact:
        """A peer with the addresses that it named while it was connected; those of `contact` when none are known."""
        known = self._nearest.get(contact.peer)
        return known or Contact(contact.peer, self._addresses_of(contact.peer) or contact.addresses)

    def _for(self, remote: str, contact: Contact) -> Contact:
        is_here, is_public = self._is_here(remote), is_public_address(remote)
        addresses = (
            address
            for address in contact.addresses
            if (is_here or scope_of(address) is not Scope.LOOPBACK)
            and not (is_public and ip_of(address) is not None and not is_public_address(address))
        )
        return Contact(contact.peer, tuple(addresses))


def is_public_address(address: str) -> bool:
    """Whether the IP address of a multiaddr is one of the public internet."""
    ip = ip_of(address)
    return ip is not None and ip.is_global
