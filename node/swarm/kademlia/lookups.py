"""Lookups: each runs the machine of `protocols/kademlia/lookup.py`, and asks the peers that it names."""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, Generic

import trio

from node.driver import Driver
from node.swarm.kademlia.client import KademliaClient, WrongAnswer
from node.swarm.kademlia.routing import Routing
from node.swarm.rpc import Silent, Unreachable
from protocols.kademlia.contact import Contact
from protocols.kademlia.lookup import Lookup, LookupOptions
from protocols.kademlia.lookup_events import Ended, Found, ReplyReceived, RequestFailed, Result, SendRequest
from protocols.kademlia.lookup_purposes import AgreedValue, ClosestPeers, FirstValue, PeerFound, Providers, Purpose
from protocols.kademlia.messages import FindNode, GetProviders, GetValue, KadAnswer, KadRequest, PutValue, Record
from protocols.keys import peer_id_bytes
from protocols.placement import place_of_key, place_of_peer
from protocols.policy.machine import Tick

STORE_SECONDS = 5.0
"""How long each of the nearest peers may take to keep a value or a provider: it commits it."""
REFRESH_BITS_MAX = 14
"""Leading bits of a place for which a key is sought: each more takes twice as many hashes. Only a swarm of more than
100,000 nodes has more buckets than that."""
_HASHES_AT_ONCE = 256


class Lookups:
    """All lookups of one node."""

    def __init__(
        self, own: str, routing: Routing, client: KademliaClient, *, options: LookupOptions | None = None
    ) -> None:
        self._own = own
        self._routing = routing
        self._client = client
        self._options = options or LookupOptions()
        self.ended: Counter[str] = Counter()
        """Lookups by their outcome."""
        self.requests = 0

    async def find_node(self, key: bytes) -> Result:
        """The peers nearest to a key."""
        return await self._run(place_of_key(key), FindNode(key), ClosestPeers(), _nothing)

    async def refresh(self, place: int) -> Result:
        """Look up a place of the bucket of the routing table that this place is in; this node's own place itself."""
        if place == self._routing.table.own_place:
            return await self.find_node(peer_id_bytes(self._own))
        shared = 256 - (self._routing.table.own_place ^ place).bit_length()
        return await self.find_node(await _key_near(place, min(shared + 1, REFRESH_BITS_MAX)))

    async def find_peer(self, peer: str) -> Contact | None:
        """Where a peer is, when it answers; None when it does not, or nobody knows it."""
        purpose = PeerFound(peer)
        result = await self._run(place_of_peer(peer), FindNode(peer_id_bytes(peer)), purpose, _nothing)
        return next((contact for contact in result.closest if contact.peer == peer), None)

    async def get_value(self, key: bytes, purpose: FirstValue | AgreedValue) -> Result:
        """Values of a key; what was found is in the purpose."""
        return await self._run(place_of_key(key), GetValue(key), purpose, _value)

    async def find_providers(self, key: bytes, purpose: Providers) -> Result:
        """Who provides a key, as peers say; those that were found are in the purpose."""
        return await self._run(place_of_key(key), GetProviders(key), purpose, _providers)

    async def put_value(self, record: Record) -> int:
        """Have the nearest peers keep a value; returns how many of them answered with the same."""
        answers: list[KadAnswer] = []

        async def put(contact: Contact) -> None:
            try:
                answers.append(await self._client.ask(contact, PutValue(record), timeout=STORE_SECONDS))
            except (Silent, Unreachable):
                self._routing.failed(contact.peer)

        result = await self.find_node(record.key)
        async with trio.open_nursery() as nursery:
            for contact in result.closest:
                nursery.start_soon(put, contact)
        return sum(answer.record is not None and answer.record.value == record.value for answer in answers)

    async def _run(
        self,
        place: int,
        request: KadRequest,
        purpose: Purpose[Found],
        found_in: Callable[[KadAnswer], Found | None],
    ) -> Result:
        seeds = self._routing.table.closest(place, self._options.k)
        lookup = Lookup(place, seeds, purpose, own=self._own, now=trio.current_time(), options=self._options)
        result = await _RunningLookup(lookup, request, found_in, self._client, self._routing, self._options).run()
        self.ended[result.outcome.value] += 1
        self.requests += result.requests
        for liar in result.lied:
            self._routing.ban(liar)
        return result


class _RunningLookup(Generic[Found]):
    """One lookup under way."""

    def __init__(
        self,
        lookup: Lookup[Found],
        request: KadRequest,
        found_in: Callable[[KadAnswer], Found | None],
        client: KademliaClient,
        routing: Routing,
        options: LookupOptions,
    ) -> None:
        self._request = request
        self._found_in = found_in
        self._client = client
        self._routing = routing
        self._seconds = options.request_seconds
        self._driver = Driver[Any, Any](lookup, self._carry_out)
        self._results: list[Result] = []
        self._nursery: trio.Nursery | None = None

    async def run(self) -> Result:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._driver.handle(Tick())
            if not self._results:
                nursery.start_soon(self._driver.run)
        return self._results[0]

    def _carry_out(self, effect: SendRequest | Ended) -> None:
        assert self._nursery is not None
        match effect:
            case SendRequest(contact):
                self._nursery.start_soon(self._ask, contact)
            case Ended(result):
                self._results.append(result)
                self._nursery.cancel_scope.cancel()

    async def _ask(self, contact: Contact) -> None:
        try:
            answer = await self._client.ask(contact, self._request, timeout=self._seconds)
        except WrongAnswer:
            self._driver.handle(RequestFailed(contact.peer, is_lie=True))
        except (Silent, Unreachable):
            self._routing.failed(contact.peer)
            self._driver.handle(RequestFailed(contact.peer))
        else:
            self._routing.heard(contact.peer)
            self._driver.handle(ReplyReceived(contact.peer, answer.closer, self._found_in(answer)))


async def _key_near(place: int, bits: int) -> bytes:
    """A key whose place has the same leading bits: peers are asked for keys, and know no way from a place to a key."""
    head = b"refresh" + place.to_bytes(32, "big")[:8]
    for number in count():
        key = head + number.to_bytes(8, "big")
        if (place_of_key(key) ^ place) >> (256 - bits) == 0:
            return key
        if number % _HASHES_AT_ONCE == _HASHES_AT_ONCE - 1:
            await trio.lowlevel.checkpoint()
    raise AssertionError("unreachable")


def _nothing(answer: KadAnswer) -> None:
    return None


def _value(answer: KadAnswer) -> bytes | None:
    return answer.record and answer.record.value


def _providers(answer: KadAnswer) -> Sequence[Contact] | None:
    return answer.providers or None
