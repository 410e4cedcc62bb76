"""From a UCXL address with its temporal part to the version it means."""

from node.dht.base import Answer, Consistency, History
from node.dht.switch import Begun, SwitchDHT
from node.store.base import Store, Version
from protocols.clock import ms_of
from protocols.codes import Deleted, NotFound, Unavailable
from protocols.envelope import Envelope
from protocols.ucxl import Address, Head, pick, require_one

PAGE = 1000


class Resolver:
    """Reads through the DHT. A temporal read is answered over the versions that this node knows, or can be told of.

    What takes several calls to the DHT takes one deadline in all, and stays with the backend that it began in.
    """

    def __init__(self, dht: SwitchDHT, store: Store) -> None:
        self._dht = dht
        self._store = store

    async def resolve(
        self,
        address: Address,
        *,
        consistency: Consistency = Consistency.AUTO,
        digest: bytes | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """The version an address means, first in `heads` and with its content; siblings after it.

        Raises `NotFound`, `Deleted` (a tombstone; its digest is in the details), `OutOfRange`, `Unavailable`.
        """
        key = require_one(address).key
        begun = self._dht.begin(key, timeout)
        if digest is not None:
            answer = await self._version(key, digest, consistency, begun)
        elif isinstance(address.temporal, Head):
            answer = await self._dht.get(key, consistency=consistency, timeout=timeout)
        else:
            answer = await self._at(address, consistency, begun)
        if not answer.heads:
            raise NotFound(f"nothing is known at {address.text}", address=address.text)
        first = answer.heads[0]
        if not isinstance(first, Envelope):
            first = await self._content(key, first.digest, consistency, begun)
            answer = answer._replace(heads=(first, *answer.heads[1:]))
        if first.deleted and digest is None:
            raise Deleted(
                f"{address.text} was deleted; its history is still there",
                deleted=True,
                digest=first.digest.hex(),
                version=first.version,
                siblings=answer.provenance.siblings,
            )
        return answer

    async def _version(self, key: bytes, digest: bytes, consistency: Consistency, begun: Begun) -> Answer:
        return await begun.dht.get_version(key, digest, consistency=consistency, timeout=begun.left)

    async def _content(self, key: bytes, digest: bytes, consistency: Consistency, begun: Begun) -> Envelope:
        """A version that is known to exist. That nobody who was asked has it is no proof that it does not."""
        held = await self._version(key, digest, consistency, begun)
        if not held.heads or not isinstance(held.heads[0], Envelope):
            raise Unavailable(
                f"the version {digest.hex()} is known here, but nobody who holds its content answered",
                digest=digest.hex(),
            )
        return held.heads[0]

    async def _at(self, address: Address, consistency: Consistency, begun: Begun) -> Answer:
        history = await self._whole(address.key, consistency, begun)
        if not history.versions:
            raise NotFound(f"nothing is known at {address.canonical}", address=address.canonical)
        chosen = history.versions[pick(address.temporal, [ms_of(v.version) for v in history.versions])]
        envelope = await self._content(address.key, chosen.digest, consistency, begun)
        return Answer((envelope,), history.provenance._replace(siblings=0))

    async def _whole(self, key: bytes, consistency: Consistency, begun: Begun) -> History:
        """The whole history that counts: a version that was reissued is there once, as what stands in for it."""
        history = await begun.dht.history(key, consistency=consistency, limit=PAGE, timeout=begun.left)
        versions: list[Version] = list(history.versions)
        while len(versions) < history.total:
            page = await self._store.versions(key, after=len(versions), limit=PAGE)
            if not page:
                break
            versions.extend(page)
        return history._replace(versions=tuple(v for v in versions if v.reissued_as is None))

    async def history(
        self,
        address: Address,
        *,
        consistency: Consistency = Consistency.AUTO,
        after: int = 0,
        limit: int = PAGE,
        timeout: float | None = None,
    ) -> History:
        """The versions of an address, the first one first. Raises `NotFound` when there is none."""
        key = require_one(address).key
        history = await self._dht.history(key, consistency=consistency, after=after, limit=limit, timeout=timeout)
        if not history.total:
            raise NotFound(f"nothing is known at {address.canonical}", address=address.canonical)
        return history
