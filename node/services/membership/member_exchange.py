"""Member exchange: members tell each other which other members they know, and where these can be dialled.

A member is asked when it is connected, and again while it is connected with other nodes than this one, which its
answers to pings show: where both have the same view, there is nothing to tell. What a member says of another one is
hearsay. It is reported as a sighting of each member that is not connected here: of one that is not known yet, and of
one that is, but may be at another address now.
"""

from collections import deque
from collections.abc import Callable
from math import inf

import trio

from discovery.announce import AnnounceFinder
from discovery.finder import Sightings
from node.store.members import Member
from node.swarm.members import Members
from node.swarm.peer_policy import PeerPolicy
from node.swarm.rpc import Rpc
from protocols.errors import BzzzError
from protocols.messages import ADDRESSES_MAX, MEMBERS_MAX, GetMembers, MemberEntry, MembersReply
from protocols.policy.address_scope import Scope, scope_of
from protocols.policy.sighting import Sighting, Source

EXCHANGE_SECONDS = 5.0
"""How often the one of the members with another view is asked that was asked longest ago, on average."""
LARGE_EXCHANGE_SECONDS = 60.0
"""The same in a large swarm: no two members are connected with the same ones there, and the lists are long."""
TIMEOUT_SECONDS = 2.0
FULL_MAX, FULL_SECONDS = 3, 60.0
"""So many members are asked for announcements as well within so long: they all tell the same, and it may be long."""
TAKEN_MAX = 8
"""Addresses of each member that are taken: a member that names a thousand others must not cost this node all its
sockets."""


def addresses_for(member: Member, *, is_here: bool) -> tuple[str, ...]:
    """The addresses of a member for a peer that asks; `is_here`: the peer runs on this machine."""
    addresses = member.addresses
    if not is_here:
        addresses = tuple(address for address in addresses if scope_of(address) is not Scope.LOOPBACK)
    return addresses[:ADDRESSES_MAX]


class MemberExchange:
    """`is_on` says whether members are asked."""

    def __init__(
        self,
        *,
        rpc: Rpc,
        members: Members,
        peer_policy: PeerPolicy,
        chance: Callable[[], float],
        is_on: Callable[[], bool],
        sightings: Sightings,
        announce: AnnounceFinder,
    ) -> None:
        self._rpc = rpc
        self._members = members
        self._peer_policy = peer_policy
        self._chance = chance
        self._is_on = is_on
        self._sightings = sightings
        self._announce = announce
        self._last_asked_at = -inf
        self._full_at: deque[float] = deque(maxlen=FULL_MAX)
        """When the last members were asked for announcements as well."""
        self._asked_at: dict[str, float] = {}

    async def run(self) -> None:
        """Ask one member after another that is connected with other nodes than this one, until cancelled."""
        while True:
            seconds = LARGE_EXCHANGE_SECONDS if self._members.is_large else EXCHANGE_SECONDS
            await trio.sleep(seconds * (0.5 + self._chance()))
            others = [peer for peer in self._members.kept() if self._differs(peer)]
            self._asked_at = {peer: self._asked_at.get(peer, -inf) for peer in others}
            if others:
                peer = min(others, key=self._asked_at.__getitem__)
                self._asked_at[peer] = trio.current_time()
                await self.ask(peer)

    def _differs(self, peer: str) -> bool:
        presence = self._members.get(peer)
        return presence is not None and presence.view != self._members.view()

    async def greet(self, peer: str) -> None:
        """Ask a member that has just connected, and one of the first ones for what all nodes announce as well. In a
        large swarm, where members connect for a request, not each of them is asked."""
        now = trio.current_time()
        if self._members.is_large and now - self._last_asked_at < EXCHANGE_SECONDS:
            return
        is_first = len(self._full_at) < FULL_MAX or self._full_at[0] < now - FULL_SECONDS
        if is_first:
            self._full_at.append(now)
        await self.ask(peer, with_announcements=is_first)

    async def ask(self, peer: str, *, with_announcements: bool = False) -> None:
        """Ask one member now."""
        if not self._is_on():
            return
        self._last_asked_at = trio.current_time()
        try:
            reply = await self._rpc.call(peer, GetMembers(with_announcements), timeout=TIMEOUT_SECONDS)
        except BzzzError:
            return
        if not isinstance(reply, MembersReply):
            return
        for entry in reply.members:
            if self._is_sought(entry.peer) and entry.addresses:
                self._report(entry, peer)
        if with_announcements:
            await self._announce.learned(peer, reply.announcements)

    def answer(self, request: GetMembers, *, is_here: bool) -> MembersReply:
        """The members that this node knows, for a peer; `is_here`: it runs on this machine, and so can dial the
        loopback addresses of members that do too."""
        known = [(p, addresses_for(p.member, is_here=is_here)) for p in self._members.all()]
        entries = [MemberEntry(p.member.peer, addresses, p.is_connected) for p, addresses in known if addresses]
        announcements = self._announce.known() if request.with_announcements else ()
        return MembersReply(tuple(entries[:MEMBERS_MAX]), announcements)

    def _is_sought(self, peer: str) -> bool:
        presence = self._members.get(peer)
        is_connected = presence is not None and presence.is_connected
        return not is_connected and peer != self._members.own and self._peer_policy.is_listed(peer)

    def _report(self, entry: MemberEntry, reporter: str) -> None:
        self._sightings.saw(
            Sighting(
                peer=entry.peer,
                addresses=entry.addresses[:TAKEN_MAX],
                source=Source.EXCHANGE,
                reporter=reporter,
                is_vouched=entry.is_connected,
            )
        )
