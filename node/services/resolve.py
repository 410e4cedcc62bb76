"""From a UCXL address with its temporal part to the version it means."""

from node.dht.base import DHT, Answer, Consistency, History
from node.store.base import Store, Version
from protocols.clock import ms_of
from protocols.codes import Deleted, NotFound, Unavailable
from protocols.envelope import Envelope
from protocols.ucxl import Address, Head, pick, require_one

PAGE = 1000


class Resolver:
    """Reads through the DHT. A temporal read is answered over the versions that this node knows, or can be told of."""

    def __init__(self, dht: DHT, store: Store) -> None:
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
        if digest is not None:
            answer = await self._version(key, digest, consistency, timeout)
        elif isinstance(address.temporal, Head):
            answer = await self._dht.get(key, consistency=consistency, timeout=timeout)
        else:
            answer = await self._at(address, consistency, timeout)
        if not answer.heads:
            raise NotFound(f"nothing is known at {address.text}", address=address.text)
        first = answer.heads[0]
        if not isinstance(first, Envelope):
            held = await self._version(key, first.digest, consistency, timeout)
            if not held.heads or not isinstance(held.heads[0], Envelope):
                raise Unavailable(
                    f"the version {first.digest.hex()} is known here, but nobody who holds its content answered",
                    digest=first.digest.hex(),
                )
            first = held.heads[0]
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

    async def _version(self, key: bytes, digest: bytes, consistency: Consistency, timeout: float | None) -> Answer:
        return await self._dht.get_version(key, digest, consistency=consistency, timeout=timeout)

    async def _at(self, address: Address, consistency: Consistency, timeout: float | None) -> Answer:
        history = await self._whole(address.key, consistency, timeout)
        if not history.versions:
            raise NotFound(f"nothing is known at {address.canonical}", address=address.canonical)
        chosen = history.versions[pick(address.temporal, [ms_of(v.version) for v in history.versions])]
        answer = await self._version(address.key, chosen.digest, consistency, timeout)
        provenance = history.provenance._replace(siblings=0)
        return Answer(answer.heads, provenance)

    async def _whole(self, key: bytes, consistency: Consistency, timeout: float | None) -> History:
        """The whole history that counts: a version that was reissued is there once, as what stands in for it."""
        history = await self._dht.history(key, consistency=consistency, limit=PAGE, timeout=timeout)
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
