"""The mock backend: this machine's store and nothing else. It does not notice whether there is a swarm.

What is written here while members are known is owed to them like any other write; it reaches them when this node
speaks with the swarm again.
"""

from collections.abc import Callable

import trio

from node.dht.base import Answer, Backend, Consistency, History, Provenance, Provider, Receipt
from node.store.base import Incoming, Origin, Store
from protocols.codes import Indeterminate
from protocols.envelope import Envelope

PROVIDE_TTL_MS = 48 * 3600 * 1000
"""How long a provider is remembered (the libp2p kad-dht specification's provider record expiry)."""
TURN_CALLS = 256
"""Calls that answer from memory wait for nothing: after so many of them others get their turn."""

_LOCAL = Provenance(Backend.MOCK, "local", 0.0, 1, 0, False)
_ABSENT = Answer((), Provenance(Backend.MOCK, "local", 0.0, 0, 0, False))


class MockDHT:
    """`wanted` names the known holders of a key; `now_ms` is the wall clock; a put fails when the disk takes longer
    than `deadline_seconds`."""

    backend = Backend.MOCK
    write_quorum = 0

    def __init__(
        self,
        store: Store,
        *,
        own: str,
        now_ms: Callable[[], int],
        wanted: Callable[[bytes], tuple[str, ...]] = lambda _: (),
        deadline_seconds: float = 1.0,
    ) -> None:
        self._store = store
        self._own = own
        self._now_ms = now_ms
        self._wanted = wanted
        self._deadline = deadline_seconds
        self._turns = 0

    async def put(
        self,
        envelope: Envelope,
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        on_merged: Callable[[], None] | None = None,
    ) -> Receipt:
        started = trio.current_time()
        self._turns += 1
        if not self._turns % TURN_CALLS:
            await trio.lowlevel.checkpoint()
        wanted = self._wanted(envelope.key)
        incoming = Incoming(envelope, Origin.LOCAL, wanted, (), idempotency_key)
        now_ms = self._now_ms()
        merged = self._store.merge_at_once((incoming,), now_ms=now_ms)
        if merged is None:
            with trio.move_on_after(self._deadline if timeout is None else timeout):
                merged = await self._store.merge((incoming,), now_ms=now_ms)
            if merged is None:
                raise stalled(envelope)
        sequence = merged[0].sequence
        if on_merged is not None:
            on_merged()
        return Receipt(
            Backend.MOCK, 0, len(wanted), 0, (trio.current_time() - started) * 1000.0, self._store.log_id, sequence,
            envelope.address, envelope.version, envelope.digest, envelope.parents,
        )  # fmt: skip

    async def get(
        self, key: bytes, *, consistency: Consistency = Consistency.AUTO, timeout: float | None = None
    ) -> Answer:
        self._turns += 1
        if not self._turns % TURN_CALLS:
            await trio.lowlevel.checkpoint()
        heads = await self._store.heads(key)
        if not heads:
            return _ABSENT
        if len(heads) == 1:
            return Answer(heads, _LOCAL)
        return Answer(heads, _LOCAL._replace(siblings=len(heads) - 1))

    async def get_version(
        self, key: bytes, digest: bytes, *, consistency: Consistency = Consistency.AUTO, timeout: float | None = None
    ) -> Answer:
        found = await self._store.by_digest(digest)
        return Answer((found,), _LOCAL) if found is not None and found.key == key else _ABSENT

    async def history(
        self, key: bytes, *, consistency: Consistency = Consistency.AUTO, after: int = 0, limit: int = 1000,
        timeout: float | None = None,
    ) -> History:  # fmt: skip
        versions = await self._store.versions(key, after=after, limit=limit)
        return History(tuple(versions), await self._store.count_versions(key), True, _LOCAL)

    async def provide(self, key: bytes, *, timeout: float | None = None) -> int:
        await self._store.provide(key, self._own, expires_ms=self._now_ms() + PROVIDE_TTL_MS)
        return 0

    async def find_providers(self, key: bytes, *, timeout: float | None = None) -> tuple[Provider, ...]:
        addresses = {member.peer: member.addresses for member in self._store.members()}
        peers = await self._store.providers(key, now_ms=self._now_ms())
        return tuple(Provider(peer=peer, addresses=addresses.get(peer, ())) for peer in peers)


def stalled(envelope: Envelope) -> Indeterminate:
    """The disk did not confirm a write in time."""
    return Indeterminate(
        "this node's disk did not confirm the write in time; it may appear. Ask for it by its digest, then try again",
        digest=envelope.digest.hex(),
        address=envelope.address,
    )
