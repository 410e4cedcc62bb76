"""Asks peers in the DHT's protocol, and connects to them when need be.

A peer that is not connected is dialled at the addresses that others gave of it, which may lie: few such dials are under
way at a time. The connection ends by itself when it is not used.
"""

from collections import Counter
from collections.abc import Callable, Sequence

import trio

from node.swarm.base import DialFailed, Kad, KadFailed
from node.swarm.peer_policy import PeerPolicy
from node.swarm.rpc import Silent, Unreachable
from protocols.errors import Malformed
from protocols.kademlia.contact import Contact
from protocols.kademlia.message_codec import decode_answer, encode_request
from protocols.kademlia.messages import AddProvider, KadAnswer, KadPing, KadRequest
from protocols.policy.reputation import Offence

DIALS_MAX = 16
"""Dials under way; further ones wait, within their deadline."""


class WrongAnswer(Silent):
    """What a peer answered breaks the rules."""


class KademliaClient:
    """`may_ask` says whether this node deals with a peer at all."""

    def __init__(self, kad: Kad, peer_policy: PeerPolicy, *, may_ask: Callable[[str], bool] = lambda _: True) -> None:
        self._kad = kad
        self._peer_policy = peer_policy
        self._may_ask = may_ask
        self._dials = trio.CapacityLimiter(DIALS_MAX)
        self.asked: Counter[str] = Counter()
        """Requests that were sent, by their name."""
        self.failed: Counter[str] = Counter()
        """Those without a valid answer, by their name."""
        self.dialled = 0
        self.dials_failed = 0

    async def ask(self, contact: Contact, *requests: KadRequest, timeout: float) -> KadAnswer:
        """The answer of a peer to a request; or to the last one of several, when the others are `AddProvider`, which
        have none. To cancel it is harmless.

        Raises `Unreachable` when it could not be connected, `WrongAnswer`, or `Silent` for any other reason.
        """
        peer, names = contact.peer, [type(request).__name__ for request in requests]
        self.asked.update(names)
        try:
            return await self._ask(contact, requests, trio.current_time() + timeout)
        except (Silent, Unreachable):
            self.failed.update(names)
            raise
        except trio.TooSlowError:
            self.failed.update(names)
            raise Silent(f"{peer} did not answer within {timeout * 1000:.0f} ms", peer=peer) from None

    async def _ask(self, contact: Contact, requests: Sequence[KadRequest], deadline: float) -> KadAnswer:
        peer = contact.peer
        if not self._may_ask(peer):
            raise Unreachable(f"this node does not deal with {peer}", peer=peer)
        with trio.fail_at(deadline):
            if not self._kad.is_connected(peer):
                await self._connect(contact, deadline)
            # There is no answer to an `AddProvider`. A peer answers in order: its answer to a ping says that it got it.
            if isinstance(requests[-1], AddProvider):
                requests = (*requests, KadPing())
            try:
                encoded = await self._kad.ask(peer, *map(encode_request, requests))
            except KadFailed as error:
                raise Silent(f"{peer}: {error}", peer=peer) from error
        return self._decoded(peer, encoded, requests[-1])

    def _decoded(self, peer: str, encoded: bytes, request: KadRequest) -> KadAnswer:
        counters = self._peer_policy.limit_counters
        try:
            answer = decode_answer(encoded, request)
        except Malformed as error:
            counters.count("kad_malformed")
            self._peer_policy.blame(peer, Offence.WRONG_ANSWER, f"in the DHT: {error.message}")
            raise WrongAnswer(f"{peer}: {error.message}", peer=peer) from error
        if answer.left_out:
            counters.count("kad_contacts_left_out", answer.left_out)
        return answer

    async def _connect(self, contact: Contact, deadline: float) -> None:
        if not contact.addresses:
            raise Unreachable(f"{contact.peer} is not connected, and no address of it is known", peer=contact.peer)
        async with self._dials:
            self.dialled += 1
            try:
                seconds = max(0.0, deadline - trio.current_time())
                await self._kad.connect(contact.peer, contact.addresses, timeout=seconds)
            except DialFailed as error:
                self.dials_failed += 1
                raise Unreachable(f"{contact.peer} cannot be connected: {error}", peer=contact.peer) from error
