"""Greetings: the hello in both directions, after which a peer is a member; or else the two nodes part.

A hello says who the sender is and at which addresses others can dial it. It is said on each new connection, and again
to all members when these addresses have changed: a member that goes on telling an old address to others keeps them
apart from this node.
"""

from collections.abc import Callable

import trio

from discovery.announce import AnnounceFinder
from node.services.membership.log_continuity import LogContinuity
from node.services.membership.peer_log import PeerLog
from node.services.membership.stored_members import StoredMembers
from node.services.membership.this_node import ThisNode
from node.store.members import Member
from node.swarm.members import Members
from node.swarm.rpc import Rpc
from protocols.errors import BzzzError, Forbidden, TooManyRequests
from protocols.messages import ADDRESSES_MAX, TEXT_MAX, Hello
from protocols.policy.reputation import Offence
from protocols.policy.sighting import Sighting, Source

HELLO_SECONDS = 2.0
DISCONNECT_DELAY_SECONDS = 0.1
"""A peer that is refused is disconnected so much later: the reply that says why must reach it first."""
FORMER_ADDRESSES_KEPT_MAX = 256


class Greetings:
    """`checked` takes the sighting that a hello is, and returns the addresses in it that may be dialled.

    `on_foreign` is called with a peer of another swarm and the reason before it is disconnected, `on_sign_of_life` with
    a text for each member that is there again, `start_task` starts a coroutine function in the background.
    """

    def __init__(
        self,
        *,
        rpc: Rpc,
        members: Members,
        stored: StoredMembers,
        this_node: ThisNode,
        announce: AnnounceFinder,
        log_continuity: LogContinuity,
        now_ms: Callable[[], int],
        peer_log: PeerLog,
        checked: Callable[[Sighting], tuple[str, ...]],
        on_foreign: Callable[[str, str], None],
        on_sign_of_life: Callable[[str], None],
        start_task: Callable[..., None],
    ) -> None:
        # More than ten parameters, because a hello carries facts for every part of the membership.
        self._network = rpc.network
        self._rpc = rpc
        self._members = members
        self._stored = stored
        self._this_node = this_node
        self._announce = announce
        self._log_continuity = log_continuity
        self._now_ms = now_ms
        self._log = peer_log
        self._checked = checked
        self._on_foreign = on_foreign
        self._on_sign_of_life = on_sign_of_life
        self._start_task = start_task
        self._remotes: dict[str, tuple[str, bool]] = {}
        """By connected peer, the address at its end, and whether this node dialled it."""
        self._foreign: dict[str, int] = {}
        """Peers of another swarm that are about to be disconnected, and how many hellos of theirs were answered."""
        self._former_addresses: dict[str, tuple[str, ...]] = {}
        """The addresses of a member before its last hello that named other ones, the latest change last."""

    def connected(self, peer: str, address: str, dialled: bool) -> None:
        self._remotes[peer] = address, dialled

    def disconnected(self, peer: str) -> None:
        self._remotes.pop(peer, None)
        self._foreign.pop(peer, None)
        self._this_node.forget(peer)

    def address_of(self, peer: str) -> str:
        """The address at the other end of the connection to a peer; '' when it is not connected."""
        return self._remotes.get(peer, ("", False))[0]

    def is_here(self, peer: str) -> bool:
        """Whether a connected peer runs on this machine."""
        return self._this_node.is_here(self.address_of(peer))

    # -- a peer says hello ------------------------------------------------------------------------------------

    def answer(self, peer: str, hello: Hello) -> Hello:
        """Answer a hello of a peer of this swarm. Raises `Forbidden` for another swarm, `TooManyRequests` when the node
        has no room for another member."""
        if hello.network != self._this_node.network:
            self._part_with(peer, hello.network)
            if peer in self._foreign:
                self._foreign[peer] += 1
                if self._foreign[peer] > 1:
                    why = "says hello again and again, and is of another swarm"
                    self._rpc.peer_policy.blame(peer, Offence.FLOOD, why)
            raise Forbidden(
                f"this node is of the swarm {self._this_node.network!r}, not {hello.network!r}", reason="network"
            )
        if why := self.why_full(peer):
            raise TooManyRequests(why)
        presence = self._members.get(peer)
        known = (*(presence.member.addresses if presence else ()), *self._former_addresses.get(peer, ()))
        known_at = tuple(address for address in dict.fromkeys(known) if address not in hello.addresses)[:ADDRESSES_MAX]
        reply = self._hello(peer, known_at)
        self._welcome(peer, hello, None)
        return reply._replace(twin=self._log_continuity.twin_of(peer))

    def why_full(self, peer: str) -> str:
        """Why there is no room for a peer as a member, in words; '' when there is, or when it is a member."""
        most = self._rpc.limits.members_max
        if self._members.get(peer) is not None or len(self._members) < most:
            return ""
        why = f"{most} members are remembered, which is the most: it may join when some were forgotten"
        self._rpc.peer_policy.limit_counters.hit("members_refused", "", why)
        return why

    # -- this node says hello ---------------------------------------------------------------------------------

    async def greet(self, peer: str) -> bool:
        """Say hello to a peer that is connected. Returns whether it is a member now; if not, it is disconnected."""
        if why := self.why_full(peer):
            await trio.sleep(DISCONNECT_DELAY_SECONDS)
            self._network.disconnect(peer, why)
            return False
        sent_ms = self._now_ms()
        try:
            reply = await self._rpc.call(peer, self._hello(peer), timeout=HELLO_SECONDS)
        except Forbidden as error:
            self._part_with(peer, error.message)
            return False
        except BzzzError as error:
            self._log.info("%s did not answer our hello: %s", peer, error.message)
            self._network.disconnect(peer, "it did not answer our hello")
            return False
        if not isinstance(reply, Hello) or reply.network != self._this_node.network:
            self._part_with(peer, reply.network if isinstance(reply, Hello) else "not known")
            return False
        self._welcome(peer, reply, reply.now_ms - (sent_ms + self._now_ms()) / 2)
        return True

    async def tell_again(self, peer: str) -> None:
        """Say hello to a member once more, because the addresses of this node have changed."""
        try:
            reply = await self._rpc.call(peer, self._hello(peer), timeout=HELLO_SECONDS)
        except BzzzError:
            return  # a silent peer was reported by the call; when it connects again, it is greeted anew
        if isinstance(reply, Hello) and reply.network == self._this_node.network:
            self._welcome(peer, reply, None)

    def _hello(self, peer: str, known_at: tuple[str, ...] = ()) -> Hello:
        """This node's hello; `known_at` are addresses by which it knew the peer, and which that does not name now."""
        this_node, remote = self._this_node, self.address_of(peer)
        return Hello(
            this_node.network,
            this_node.name,
            self._log_continuity.log_id,
            self._now_ms(),
            this_node.addresses_for(remote),
            known_at,
            remote[:TEXT_MAX],
            this_node.agent,
            self._announce.own(),
            *self._log_continuity.hello_fields(peer),
        )

    # -- members, and peers of other swarms -------------------------------------------------------------------

    def _welcome(self, peer: str, hello: Hello, offset_ms: float | None) -> None:
        """A peer of this swarm said hello: it is a member now."""
        now_ms = self._now_ms()
        known = self._members.get(peer)
        sighting = Sighting(
            peer=peer,
            addresses=hello.addresses,
            source=Source.HELLO,
            name=hello.name,
            agent=hello.agent,
        )
        member = Member(
            peer=peer,
            name=hello.name,
            addresses=self._checked(sighting),
            first_seen_ms=known.member.first_seen_ms if known else now_ms,
            last_seen_ms=now_ms,
        )
        self._compare_places(peer, hello, known.member if known else None, member)
        self._log_continuity.greeted(peer, hello)
        if hello.twin:
            log_id, address = hello.twin
            self._network.twin_reported(log_id, address, yields=self._log_continuity.log_id > log_id)
        is_back = known is None or not known.is_connected
        is_changed = known is None or known.member.addresses != member.addresses
        presence = self._members.put(member)
        presence.is_connected = True
        if offset_ms is not None:
            presence.clock_offset_ms = offset_ms
        self._members.notify_changed()
        self._announce.met(peer, hello.announcement, clock_ms=hello.now_ms)
        if is_back or is_changed:
            self._stored.save(member)
        if is_back:
            self._on_sign_of_life(f"{self._members.name_of(peer)} is here")

    def _compare_places(self, peer: str, hello: Hello, before: Member | None, member: Member) -> None:
        """Learn from where each of the two sees the other: of addresses to tell, of a twin, of addresses left."""
        if hello.seen_at and peer in self._remotes:
            self._this_node.observe(peer, hello.seen_at, dialled=self._remotes[peer][1])
        if elsewhere := [address for address in hello.known_at if not self._this_node.is_own(address)]:
            self._start_task(self._network.look_for_twin, elsewhere)
        if before is not None and before.addresses != member.addresses:
            self._former_addresses.pop(peer, None)
            self._former_addresses[peer] = before.addresses
            if len(self._former_addresses) > FORMER_ADDRESSES_KEPT_MAX:
                del self._former_addresses[next(iter(self._former_addresses))]

    def _part_with(self, peer: str, network: str) -> None:
        """A peer is of another swarm: disconnect it, and dial it no more."""
        if peer in self._foreign:
            return
        self._foreign[peer] = 0
        what = f"is of another swarm ({network:.80}): parted, and not dialled again"
        self._rpc.peer_policy.limit_counters.hit("other_swarms", peer, what, line="offences")
        self._start_task(self._disconnect_foreign, peer, f"it is of another swarm ({network:.80})")

    async def _disconnect_foreign(self, peer: str, why: str) -> None:
        await trio.sleep(DISCONNECT_DELAY_SECONDS)
        self._on_foreign(peer, why)
        self._network.disconnect(peer, "another swarm")
