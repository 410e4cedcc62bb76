"""Answers the DHT's messages of any peer, member or not. It is the `KadReceiver` of the network."""

import logging
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from node.swarm.kademlia.contacts import Contacts
from node.swarm.kademlia.provider_book import ProviderBook
from node.swarm.peer_policy import PeerPolicy
from protocols.errors import BzzzError, Internal, Malformed
from protocols.kademlia.contact import Contact
from protocols.kademlia.message_codec import decode_request, encode_answer
from protocols.kademlia.messages import (
    CONTACTS_MAX,
    AddProvider,
    FindNode,
    GetProviders,
    GetValue,
    KadAnswer,
    KadPing,
    KadRequest,
    PutValue,
    Record,
)
from protocols.placement import place_of_key, place_of_peer
from protocols.policy.reputation import Offence

log = logging.getLogger(__name__)


class Records(Protocol):
    """The values and providers of this node. Each may raise a `BzzzError`, which ends the stream of the peer."""

    async def get(self, key: bytes) -> Record | None: ...

    async def put(self, peer: str, record: Record) -> Record:
        """Keep a value of a peer, and return what is there now. It blames the peer for a forged one."""
        ...

    async def holds(self, key: bytes) -> bool:
        """Whether a key is the multihash of a content that this node holds: then it provides it."""
        ...


class KademliaServer:
    """`on_found` and `on_stopped` are called as the `KadReceiver` says, `on_heard` with the peer of each message."""

    def __init__(
        self,
        contacts: Contacts,
        records: Records,
        providers: ProviderBook,
        peer_policy: PeerPolicy,
        *,
        on_found: Callable[[str, tuple[str, ...]], None],
        on_stopped: Callable[[str], None],
        on_heard: Callable[[str], None],
    ) -> None:
        self._contacts = contacts
        self._records = records
        self._providers = providers
        self._peer_policy = peer_policy
        self._on_heard = on_heard
        self.found = on_found
        self.stopped = on_stopped
        self.served: Counter[str] = Counter()
        """Requests that were answered, by their name."""
        self.failed: Counter[str] = Counter()
        """Those that were refused, by their name."""

    async def answer(self, peer: str, remote: str, message: bytes) -> bytes | None:
        try:
            request = decode_request(message)
        except Malformed as error:
            self._peer_policy.limit_counters.count("kad_malformed")
            self._peer_policy.blame(peer, Offence.BAD_INPUT, f"a request of the DHT: {error.message}")
            raise
        self._on_heard(peer)
        name = type(request).__name__
        try:
            answer = await self._answer(peer, remote, request)
        except BzzzError as error:
            self.failed[name] += 1
            log.debug("refused a %s of %s: %s", name, peer, error.message)
            raise
        except Exception as error:
            self.failed[name] += 1
            log.exception("a %s of %s could not be answered", name, peer)
            raise Internal("an error of this node") from error
        self.served[name] += 1
        return None if answer is None else encode_answer(request, answer)

    async def _answer(self, peer: str, remote: str, request: KadRequest) -> KadAnswer | None:
        match request:
            case KadPing():
                return KadAnswer()
            case FindNode(key):
                return KadAnswer(closer=self._closer(peer, remote, key, with_own=True))
            case GetValue(key):
                return KadAnswer(await self._records.get(key), self._closer(peer, remote, key))
            case PutValue(record):
                return KadAnswer(await self._records.put(peer, record))
            case AddProvider(key, providers):
                for provider in providers:
                    if provider.peer == peer:  # nobody provides for another one, nor says where another one is
                        self._providers.add(key, self._contacts.proved(provider))
                return None
            case GetProviders(key):
                return KadAnswer(None, self._closer(peer, remote, key), await self._provide(remote, key))

    async def _provide(self, remote: str, key: bytes) -> tuple[Contact, ...]:
        """Who provides a key: this node, when it holds that content, and those that said so."""
        known = self._providers.providers(key)
        own = self._contacts.own
        named = [each for each in known if each.peer == own or not self._peer_policy.complaint(each.peer)]
        if await self._records.holds(key):
            named = [Contact(own), *(each for each in named if each.peer != own)]
        return tuple(self._contacts.contact_for(remote, each) for each in named[:CONTACTS_MAX])

    def _closer(self, peer: str, remote: str, key: bytes, *, with_own: bool = False) -> tuple[Contact, ...]:
        place = place_of_key(key)
        closest = self._contacts.closest_for(peer, remote, place)
        if with_own and place == place_of_peer(self._contacts.own):
            return (self._contacts.own_for(remote), *closest[:-1])
        return closest
