"""Content search: finds a content in the swarm by its digest, whatever its address.

A few members are asked first: in a swarm of up to k nodes each of them has it. Then the DHT is asked who provides it;
its providers are asked as they are found, and dialled when need be. What a provider sends is checked: with other bytes
than those of the digest it is blamed, and the next one is asked. Last come the other members that are connected: not
everything that nodes hold has been announced yet. Nothing that is found is stored.
"""

from math import inf

import trio

from node.dht.hedged_query import QueryResult, ask
from node.swarm.base import DialFailed
from node.swarm.kademlia.kademlia import Kademlia
from node.swarm.members import Members
from node.swarm.rpc import Rpc
from protocols.cid import multihash
from protocols.envelope import Envelope, decode
from protocols.errors import BadSignature, BzzzError, Malformed, TooLarge, Unavailable
from protocols.kademlia.contact import Contact
from protocols.kademlia.lookup_events import LookupOutcome
from protocols.kademlia.lookup_purposes import Providers
from protocols.messages import ContentReply, GetContent, Reply
from protocols.placement import nearest
from protocols.policy.reputation import Offence
from protocols.policy.signature_cache import SignatureCache

MEMBERS_FIRST = 4
"""Members that are asked before the DHT."""
AT_ONCE = 2
"""Members that are asked side by side: each may send the whole content, 1 MiB."""
PROVIDERS_MAX = 20
"""The look-up ends when so many are found."""
PROVIDERS_AT_ONCE = 4
"""Providers that are dialled or asked side by side."""
PROVIDER_SECONDS = 2.0
"""How long one of them may take to be dialled and to answer."""
PATIENCE_SECONDS = 0.25
"""A provider that takes longer does not keep the next one waiting."""


class ContentSearch:
    def __init__(self, rpc: Rpc, members: Members, kademlia: Kademlia, *, verified: SignatureCache) -> None:
        self._rpc = rpc
        self._members = members
        self._kademlia = kademlia
        self._verified = verified

    async def run(self, content_digest: bytes, deadline: float) -> Envelope | None:
        """A version with the content; None when no node that can be asked has it.

        Raises `Unavailable` when that is not known by the deadline (trio's clock).
        """
        search = _Search(content_digest, deadline, self._rpc, self._members, self._kademlia, self._verified)
        return await search.run()


class _Search:
    """One search under way."""

    def __init__(
        self,
        content_digest: bytes,
        deadline: float,
        rpc: Rpc,
        members: Members,
        kademlia: Kademlia,
        verified: SignatureCache,
    ) -> None:
        self._digest = content_digest
        self._deadline = deadline
        self._rpc = rpc
        self._members = members
        self._kademlia = kademlia
        self._verified = verified
        self._found: Envelope | None = None
        self._answered: set[str] = {members.own}
        """Nodes that said that they do not hold it, this one among them."""
        self._unanswered: set[str] = set()
        """Providers of which that is not known (yet)."""
        self._outcome: LookupOutcome | None = None
        """Of the look-up; None while it is under way."""
        self._ended = trio.Event()
        """Set when a provider has answered or failed."""

    async def run(self) -> Envelope | None:
        with trio.move_on_at(self._deadline) as scope:
            near = nearest(multihash(self._digest), self._members.answering(), MEMBERS_FIRST)
            now = trio.current_time()
            await self._ask_members(near, now + (self._deadline - now) / 3)  # frozen ones must not take all of it
            if self._found is None:
                await self._ask_providers()
            if self._found is None:
                others = tuple(peer for peer in self._members.answering() if peer not in self._answered)
                await self._ask_members(others, self._deadline)
        if self._found is None:
            self._require_absence(is_late=scope.cancelled_caught or trio.current_time() >= self._deadline)
        return self._found

    def _require_absence(self, *, is_late: bool) -> None:
        """Raise `Unavailable` unless those that should know were asked, and none of them has it."""
        names = ", ".join(map(self._members.name_of, sorted(self._unanswered)[:3]))
        if self._unanswered:
            why = f"{len(self._unanswered)} nodes that are said to hold it could not be asked ({names})"
        elif is_late:
            why = "the search was not over in time"
        elif len(self._members) <= self._members.replication and 2 * len(self._answered) > len(self._members) + 2:
            return  # a majority of the others answered, and each of them should hold everything
        elif self._outcome is LookupOutcome.SETTLED:
            return
        elif len(self._members) or len(self._kademlia.routing.table):
            why = "too few peers of the DHT answered"
        else:
            why = "no other node is known yet"
        raise Unavailable(
            f"this node does not hold that content, and whether another one does is not known now: {why}; try again, "
            "with more time (timeout_ms)",
            answered=len(self._answered) - 1,
        )  # fmt: skip

    # -- members ----------------------------------------------------------------------------------------------

    async def _ask_members(self, peers: tuple[str, ...], deadline: float) -> None:
        """Ask members one after another, a few at a time, until one has it."""

        def is_enough(result: QueryResult) -> bool:
            for peer, reply in result.answers.items():
                self._take(peer, reply)
            return self._found is not None

        if peers:
            request = GetContent(self._digest)
            await ask(self._rpc, peers, lambda _: request, at_first=AT_ONCE, is_enough=is_enough, deadline=deadline)

    def _take(self, peer: str, reply: Reply) -> None:
        """Take the answer of a peer, once."""
        if peer in self._answered or self._found is not None:
            return
        self._answered.add(peer)
        if isinstance(reply, ContentReply) and reply.envelope:
            self._found = self._checked(peer, reply.envelope)

    def _checked(self, peer: str, encoded: bytes) -> Envelope | None:
        """The version that a peer sent, if it has the content that was asked for; else the peer is blamed."""
        policy = self._rpc.peer_policy
        try:
            envelope = decode(encoded)
            self._verified.check(envelope)
        except (BadSignature, Malformed, TooLarge):
            policy.limit_counters.count("contents_wrong")
            policy.blame_for(peer, [encoded], were_asked_for=True)
            return None
        except BzzzError as error:  # such as a format of a later major
            policy.limit_counters.hit("answers_left_out", peer, f"content that cannot be taken here: {error.message}")
            self._unanswered.add(peer)
            return None
        if envelope.deleted or envelope.content_digest != self._digest:
            policy.limit_counters.count("contents_wrong")
            policy.blame(peer, Offence.WRONG_ANSWER, "answered with another content than the one that was asked for")
            return None
        return envelope

    # -- providers --------------------------------------------------------------------------------------------

    async def _ask_providers(self) -> None:
        """Look up who provides the content, and ask each, until one has it or all have answered."""
        send, receive = trio.open_memory_channel[Contact](inf)
        patience = min(PATIENCE_SECONDS, (self._deadline - trio.current_time()) / 4)
        places = trio.CapacityLimiter(PROVIDERS_AT_ONCE)
        async with trio.open_nursery() as nursery, receive:
            nursery.start_soon(self._look_up, send)
            async for contact in receive:
                if contact.peer in self._answered | self._unanswered or self._rpc.peer_policy.complaint(contact.peer):
                    continue
                self._unanswered.add(contact.peer)
                self._ended = trio.Event()
                nursery.start_soon(self._ask_provider, contact, places, nursery.cancel_scope)
                with trio.move_on_after(patience):
                    await self._ended.wait()

    async def _look_up(self, send: trio.MemorySendChannel[Contact]) -> None:
        key = multihash(self._digest)
        async with send:
            for contact in self._kademlia.providers.providers(key):
                send.send_nowait(contact)
            result = await self._kademlia.lookups.find_providers(key, Providers(PROVIDERS_MAX, send.send_nowait))
        self._outcome = LookupOutcome.SETTLED if result.outcome is LookupOutcome.MET else result.outcome

    async def _ask_provider(self, contact: Contact, places: trio.CapacityLimiter, scope: trio.CancelScope) -> None:
        try:
            async with places:
                with trio.move_on_after(PROVIDER_SECONDS):
                    await self._reach(contact)
                    reply = await self._rpc.call(contact.peer, GetContent(self._digest), timeout=PROVIDER_SECONDS)
                    self._unanswered.discard(contact.peer)
                    self._take(contact.peer, reply)
        except (BzzzError, DialFailed):
            pass  # it stays among those that did not answer
        finally:
            self._ended.set()
        if self._found is not None:
            scope.cancel()

    async def _reach(self, contact: Contact) -> None:
        """Wait until a provider is connected, and has said hello; dial it if need be. A member with which no connection
        is kept is dialled by the request itself."""
        if not self._members.is_reachable(contact.peer):
            network = self._rpc.network
            addresses = [each for each in contact.addresses if not network.address_fault(each)]
            await network.dial(addresses, timeout=PROVIDER_SECONDS)
        while not self._members.is_reachable(contact.peer):
            await self._members.changed()
