"""Runs the routing table: identities feed it, and its pings and refreshes are carried out."""

import logging
from collections.abc import Awaitable, Callable

import trio

from node.driver import Driver
from node.swarm.kademlia.client import KademliaClient
from node.swarm.rpc import Silent, Unreachable
from protocols.kademlia import routing_events as events
from protocols.kademlia.contact import Contact
from protocols.kademlia.messages import KadPing
from protocols.kademlia.routing_table import RoutingTable

log = logging.getLogger(__name__)

PING_SECONDS = 5.0
BANNED_SECONDS = 600.0
"""How long such a peer may not be in the table."""


class Routing:
    """`may_enter` says whether this node deals with a peer at all, `may_dial` whether an address can be dialled."""

    def __init__(
        self,
        own: str,
        client: KademliaClient,
        *,
        chance: Callable[[], float],
        may_enter: Callable[[str], bool],
        may_dial: Callable[[str], bool],
    ) -> None:
        self.table = RoutingTable(own, chance=chance)
        self._client = client
        self._may_enter = may_enter
        self._may_dial = may_dial
        self._driver = Driver[events.Event, events.Effect](self.table, self._carry_out)
        self._nursery: trio.Nursery | None = None
        self._refresh_place: Callable[[int], Awaitable[object]] | None = None
        self.added = 0
        self.dropped = 0

    async def run(self, refresh: Callable[[int], Awaitable[object]]) -> None:
        """Ping contacts and refresh buckets until cancelled; `refresh` looks up a place of the bucket of a place."""
        async with trio.open_nursery() as nursery:
            self._nursery, self._refresh_place = nursery, refresh
            try:
                await self._driver.run()
            finally:
                self._nursery = None

    # -- what is learned of peers -------------------------------------------------------------------------------

    def found(self, peer: str, addresses: tuple[str, ...]) -> None:
        """Identify showed that a peer speaks the protocol."""
        if self._may_enter(peer):
            dialable = tuple(address for address in addresses if self._may_dial(address))
            self._driver.handle(events.Identified(Contact(peer, dialable)))

    def stopped(self, peer: str) -> None:
        """A peer does not speak the protocol, or not any more."""
        self._driver.handle(events.ContactRemoved(peer))

    def heard(self, peer: str) -> None:
        """A peer asked or answered."""
        self._driver.handle(events.Answered(peer))

    def recheck(self) -> None:
        """Drop the contacts that this node does not deal with any more."""
        for contact in self.table.closest(self.table.own_place, len(self.table)):
            if not self._may_enter(contact.peer):
                self.stopped(contact.peer)

    def failed(self, peer: str) -> None:
        """A peer could not be asked, or did not answer in time."""
        self._driver.handle(events.ContactFailed(peer))

    def ban(self, peer: str) -> None:
        """A peer answered lies, broke other rules, or is of another swarm."""
        self._driver.handle(events.ContactBanned(peer, BANNED_SECONDS))

    # -- effects of the machine ---------------------------------------------------------------------------------

    def _carry_out(self, effect: events.Effect) -> None:
        match effect:
            case events.PingContact(contact):
                self._start(self._ping, contact)
            case events.Refresh(place):
                self._start(self._refresh, place)
            case events.ContactAdded(contact):
                self.added += 1
                log.debug("%s is in the routing table", contact.peer)
            case events.Dropped(peer, why):
                self.dropped += 1
                log.debug("%s left the routing table: %s", peer, why)

    def _start(self, task: Callable[..., Awaitable[object]], argument: object) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(task, argument)

    async def _ping(self, contact: Contact) -> None:
        try:
            await self._client.ask(contact, KadPing(), timeout=PING_SECONDS)
        except (Silent, Unreachable):
            self._driver.handle(events.PingFailed(contact.peer))
        else:
            self._driver.handle(events.Answered(contact.peer))

    async def _refresh(self, place: int) -> None:
        try:
            assert self._refresh_place is not None, "a task runs while `run` does"
            await self._refresh_place(place)
        finally:
            self._driver.handle(events.LookedUp(place))
