"""Member exchange: asks members which other members they know, and reports these as hearsay to the address book."""

from collections.abc import Callable

import trio

from node.swarm.members import Members
from node.swarm.peer_policy import PeerPolicy
from node.swarm.rpc import Rpc
from protocols.errors import BzzzError
from protocols.messages import GetMembers, MemberEntry, MembersReply
from protocols.policy.address_book import Sighted

EXCHANGE_SECONDS = 5.0
"""How often one of the members is asked, on average."""
TIMEOUT_SECONDS = 2.0
ADDRESSES_MAX = 8
"""Addresses of each member that are reported: a member that names a thousand others must not cost this node all its
sockets."""


class MemberExchange:
    """`is_on` says whether members are asked; `on_sighted` is called with each member that is not known here yet."""

    def __init__(
        self,
        *,
        rpc: Rpc,
        members: Members,
        peer_policy: PeerPolicy,
        chance: Callable[[], float],
        is_on: Callable[[], bool],
        on_sighted: Callable[[Sighted], None],
    ) -> None:
        self._rpc = rpc
        self._members = members
        self._peer_policy = peer_policy
        self._chance = chance
        self._is_on = is_on
        self._on_sighted = on_sighted

    async def run(self) -> None:
        """Ask one member after another, chosen by chance, until cancelled."""
        while True:
            await trio.sleep(EXCHANGE_SECONDS * (0.5 + self._chance()))
            reachable = self._members.reachable()
            if reachable:
                await self.ask(reachable[int(self._chance() * len(reachable))])

    async def ask(self, peer: str) -> None:
        """Ask one member now."""
        if not self._is_on():
            return
        try:
            reply = await self._rpc.call(peer, GetMembers(), timeout=TIMEOUT_SECONDS)
        except BzzzError:
            return
        for entry in reply.members if isinstance(reply, MembersReply) else ():
            is_new = self._members.get(entry.peer) is None and entry.peer != self._members.own
            if is_new and self._peer_policy.is_listed(entry.peer):
                self._report(entry, peer)

    def _report(self, entry: MemberEntry, source: str) -> None:
        addresses = [address for address in entry.addresses if address.endswith(f"/p2p/{entry.peer}")]
        if not addresses:
            return
        self._on_sighted(
            Sighted(
                peer=entry.peer,
                addresses=tuple(addresses[:ADDRESSES_MAX]),
                source=f"hearsay of {source}",
                is_hearsay=True,
            )
        )
