"""The real backend: the swarm answers, or the call fails.

A put is staged in this store, sent to the holders, and becomes a version of this node once the write quorum of them has
committed it. A get merges what the holders know into this store and answers with that. `Unavailable` means that nothing
was written, or that too few holders answered; `Indeterminate` that the write may have happened.
"""

from collections.abc import Awaitable, Callable
from math import inf

import trio

from node.config.flags import Flags
from node.dht.base import (
    Answer,
    Backend,
    Consistency,
    Extent,
    Freshness,
    Provenance,
    Provider,
    Receipt,
    VersionHistory,
)
from node.dht.commit import merge_in_time
from node.dht.content_query import ContentQuery
from node.dht.content_search import ContentSearch
from node.dht.head_query import HeadQuery
from node.dht.history_query import HistoryQuery
from node.dht.ingest import Ingest
from node.dht.readable_heads import ReadableHeads
from node.dht.replica_query import ReplicaQuery
from node.dht.write_quorum import WriteQuorum
from node.store.base import Store
from node.store.hints import Standing
from node.store.log import Incoming, Origin
from node.swarm.delivery import Delivery
from node.swarm.kademlia.holder_search import HolderSearch
from node.swarm.kademlia.kademlia import Kademlia
from node.swarm.members import Members
from node.swarm.rpc import Rpc
from protocols.envelope import Envelope, Notice
from protocols.errors import BzzzError, Indeterminate, StorageFull, Unavailable
from protocols.kademlia.lookup_events import LookupOutcome
from protocols.kademlia.lookup_purposes import Providers
from protocols.policy.signature_cache import SignatureCache

WRITE_QUORUM = 2
"""How many peers must acknowledge a write where the flags name no quorum."""
PROVIDERS_ENOUGH = 20
"""A look-up of providers ends when it has found so many."""
_NEVER_FRESH = Freshness(-inf, 0.0)


class RealDHT:
    """Deadline and quorums are those of the flags it is made with."""

    backend = Backend.REAL
    asks_swarm = True
    commits_first = False

    def __init__(
        self,
        *,
        store: Store,
        rpc: Rpc,
        delivery: Delivery,
        members: Members,
        kademlia: Kademlia,
        readable: ReadableHeads,
        verified: SignatureCache,
        now_ms: Callable[[], int],
        flags: Flags,
        holder_search: HolderSearch,
    ) -> None:
        self._store = store
        self._readable = readable
        self._round_trips = rpc.round_trips
        self._delivery = delivery
        self._members = members
        self._kademlia = kademlia
        self._now_ms = now_ms
        self.holder_search = holder_search
        self.write_quorum = flags.write_quorum or WRITE_QUORUM
        self._query = ReplicaQuery(rpc, members, at_first=flags.read_quorum)
        self._deadline_seconds = flags.real_deadline_ms / 1000.0
        self.store_deadline_seconds = flags.store_deadline_ms / 1000.0
        self._ingest = Ingest(
            store,
            verified=verified,
            now_ms=now_ms,
            store_deadline_seconds=self.store_deadline_seconds,
            peer_policy=rpc.peer_policy,
        )
        self._histories = HistoryQuery(store, members, query=self._query, ingest=self._ingest)
        self._contents = ContentQuery(members, query=self._query, ingest=self._ingest)
        self._search = ContentSearch(rpc, members, kademlia, verified=verified)
        self._heads = HeadQuery(
            store,
            rpc,
            delivery,
            members,
            readable=readable,
            query=self._query,
            contents=self._contents,
            ingest=self._ingest,
            read_quorum=flags.read_quorum,
            find_holders=holder_search.search,
        )

    @property
    def deadline_seconds(self) -> float:
        """Longer on a network with long round trips."""
        return self._round_trips.stretch(self._deadline_seconds)

    def _deadline_after(self, timeout: float | None) -> float:
        return trio.current_time() + (self.deadline_seconds if timeout is None else timeout)

    def freshness(self, key: bytes) -> Freshness:
        return _NEVER_FRESH

    async def get_here(self, key: bytes) -> Answer | None:
        return None

    # -- put --------------------------------------------------------------------------------------------------

    async def put(
        self,
        envelope: Envelope,
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        on_merged: Callable[[], None] | None = None,
    ) -> Receipt:
        started = trio.current_time()
        self.holder_search.wrote(envelope.key)
        wanted = self._members.wanted(envelope.key)
        if len(wanted) < self.write_quorum:
            raise Unavailable(
                f"a write needs {self.write_quorum} other members to acknowledge it, and {len(wanted)} are known; "
                "wait for more nodes, lower the write quorum, or use the hybrid backend",
                members=len(wanted),
                write_quorum=self.write_quorum,
            )
        standing = await self._store.standing(digest=envelope.digest)
        if standing is None or len(standing.acknowledged) < self.write_quorum:
            await self._stage(envelope, idempotency_key)
            with trio.move_on_at(self._deadline_after(timeout)) as scope:
                quorum = await self._send_to_holders(envelope, wanted)
            if scope.cancelled_caught:
                raise self._indeterminate(envelope)
            await self._require_quorum(envelope, quorum)
            standing = await self._merge_acknowledged(envelope, wanted, quorum, idempotency_key)
        if on_merged is not None:
            on_merged()
        return Receipt.of(
            envelope,
            standing._replace(wanted=max(standing.wanted, len(wanted))),
            log_id=self._store.log_of(standing.sequence),
            quorum=self.write_quorum,
            elapsed_seconds=trio.current_time() - started,
        )

    def _indeterminate(
        self, envelope: Envelope, why: str = "not enough holders acknowledged it in time"
    ) -> Indeterminate:
        return Indeterminate(
            f"the write may appear: {why}. Ask for it by its digest, or send the very same envelope again",
            digest=envelope.digest.hex(),
            address=envelope.address,
        )

    async def _stage(self, envelope: Envelope, idempotency_key: str | None) -> None:
        """Keep the envelope durably before any holder has it. Raises `Unavailable` when the disk takes too long."""
        started, seconds = trio.current_time(), self.store_deadline_seconds
        with trio.move_on_after(seconds):
            await self._store.stage(envelope, idempotency_key=idempotency_key, now_ms=self._now_ms())
            return
        why = self._store.disk.why_late(started, started + seconds)
        raise Unavailable(f"no holder was asked: the write was not staged within {seconds:.1f} s, for {why}")

    async def _send_to_holders(self, envelope: Envelope, wanted: tuple[str, ...]) -> WriteQuorum:
        """Send the envelope to its holders and wait until the outcome is decided."""
        peers = tuple(self._members.reachable_of(wanted))
        if len(peers) < self.write_quorum:  # without the suspects the quorum could not be reached at all
            peers = wanted
        quorum = WriteQuorum(
            envelope, peers, self.write_quorum, delivery=self._delivery, members=self._members, store=self._store
        )
        await quorum.decided.wait()
        return quorum

    async def _require_quorum(self, envelope: Envelope, quorum: WriteQuorum) -> None:
        """Raise when the quorum was not reached; the envelope is unstaged when it is certain that no holder has it."""
        if quorum.is_reached:
            return
        if quorum.is_unsent:
            await self._store.unstage(envelope.digest)
            raise Unavailable("no member that should hold this is connected; nothing was written", asked=quorum.sent)
        if quorum.refusal is not None:
            await self._store.unstage(envelope.digest)
            raise quorum.refusal
        raise self._indeterminate(
            envelope, f"{len(quorum.acknowledged)} of {quorum.sent} holders acknowledged it, {quorum.quorum} are needed"
        )

    async def _merge_acknowledged(
        self, envelope: Envelope, wanted: tuple[str, ...], quorum: WriteQuorum, idempotency_key: str | None
    ) -> Standing:
        """Merge the envelope, with hints for the holders that have not acknowledged it yet."""
        acknowledged = tuple(quorum.acknowledged)
        hint_holders = tuple(peer for peer in wanted if peer not in acknowledged)
        incoming = Incoming(envelope, Origin.LOCAL, hint_holders, acknowledged, idempotency_key)
        try:
            sequence, _ = await merge_in_time(
                self._store, incoming, seconds=self.store_deadline_seconds, now_ms=self._now_ms()
            )
        except BzzzError as error:
            raise self._indeterminate(
                envelope, f"holders have it, but this node cannot keep it ({error.message})"
            ) from error
        quorum.sequence = sequence
        acknowledged_meanwhile = [peer for peer in quorum.acknowledged if peer not in acknowledged]
        for peer in acknowledged_meanwhile:
            self._store.acknowledge(peer, (sequence,))
        standing = await self._store.standing(sequence=sequence)
        return standing or Standing(sequence, envelope.digest, acknowledged, len(wanted), self._now_ms())

    # -- get --------------------------------------------------------------------------------------------------

    async def get(
        self, key: bytes, *, consistency: Consistency = Consistency.AUTO, timeout: float | None = None
    ) -> Answer:
        deadline = self._deadline_after(timeout)
        local = await self._store.heads(key)
        if consistency is Consistency.LOCAL:
            view = await self._readable.view(key, local)
            return view.answer(local_answer(view.heads).provenance)
        return await self._heads.run(key, local, deadline)

    async def get_version(
        self, key: bytes, digest: bytes, *, consistency: Consistency = Consistency.AUTO, timeout: float | None = None
    ) -> Answer:
        deadline = self._deadline_after(timeout)
        found = await self._store.by_digest(digest)
        if isinstance(found, Envelope) or consistency is Consistency.LOCAL:
            return local_answer((found,) if found is not None and found.key == key else ())
        content = await self._contents.run(key, (digest,), deadline)
        found = content.envelopes.get(digest)
        if found is None:
            if content.unfound is not None:
                raise content.unfound
            return Answer((), Provenance(Backend.REAL, "swarm", 0.0, 0, 0, False))
        shortfall = await self._merge_or_say_why(self._ingest.merge((found,)))
        replicas = content.replicas[digest]
        return Answer((found,), Provenance(Backend.REAL, "swarm", 0.0, replicas, 0, bool(shortfall), shortfall))

    async def _merge_or_say_why(self, merging: Awaitable[int | None]) -> str:
        """Merge what the holders answered; return why that could not be done, or ''.

        A version that is named by its digest may be shown all the same.
        """
        try:
            refused = await merging
        except (StorageFull, Unavailable) as error:
            return f"this node cannot keep what the holders answered: {error.message}"
        return f"this node cannot take {refused} versions that the holders named; its log says why" if refused else ""

    async def history(
        self, key: bytes, *, consistency: Consistency = Consistency.AUTO, after: int = 0, limit: int = 1000,
        extent: Extent | None = None, timeout: float | None = None,
    ) -> VersionHistory:  # fmt: skip
        if consistency is Consistency.LOCAL:
            provenance = Provenance(Backend.REAL, "local", None, 1, 0, False)
        else:
            provenance = await self.gather_history(key, extent=extent, timeout=timeout)
        total = await self._store.count_versions(key)
        versions = await self._store.versions(key, after=after, limit=limit)
        return VersionHistory(tuple(versions), total, not provenance.is_degraded, provenance)

    async def gather_history(
        self, key: bytes, *, extent: Extent | None = None, timeout: float | None = None
    ) -> Provenance:
        """Merge the notices of the versions that the holders know, as far as `extent` needs them; return where the
        history comes from then.

        It is degraded when fewer than a majority sent all they know. Raises `Unavailable` when nothing is known then.
        """
        shortfall = await self._histories.merge(key, extent, self._deadline_after(timeout))
        if shortfall and not await self._store.count_versions(key):
            raise Unavailable(f"whether it has a history is not known now: {shortfall}", answered=1)
        return Provenance(Backend.REAL, "swarm", 0.0, 1, 0, bool(shortfall), shortfall)

    # -- contents and providers -------------------------------------------------------------------------------

    async def get_content(
        self, content_digest: bytes, *, consistency: Consistency = Consistency.AUTO, timeout: float | None = None
    ) -> Answer:
        deadline = self._deadline_after(timeout)
        if consistency is not Consistency.SWARM:
            found = await self._store.by_content(content_digest)
            if found is not None or consistency is Consistency.LOCAL:
                return local_answer((found,) if found is not None else ())
        found = await self._search.run(content_digest, deadline)
        provenance = Provenance(Backend.REAL, "swarm", 0.0, int(found is not None), 0, False)
        return Answer((found,) if found is not None else (), provenance)

    async def provide(self, key: bytes, *, timeout: float | None = None) -> int:
        return await self._kademlia.provide(key, timeout=self.deadline_seconds if timeout is None else timeout)

    async def find_providers(self, key: bytes, *, timeout: float | None = None) -> tuple[Provider, ...]:
        """Raises `Unavailable` when none is known, and the peers nearest to the key did not say that there is none."""
        purpose = Providers(PROVIDERS_ENOUGH)
        result = None
        with trio.move_on_at(self._deadline_after(timeout)):
            result = await self._kademlia.lookups.find_providers(key, purpose)
        found = dict(purpose.found)
        for contact in self._kademlia.providers.providers(key):
            found.setdefault(contact.peer, contact)
        if not found and (result is None or result.outcome is LookupOutcome.UNSETTLED):
            raise Unavailable("too few peers of the DHT answered; whether any peer provides it is not known now")
        return tuple(Provider(peer=each.peer, addresses=each.addresses) for _, each in sorted(found.items()))


def local_answer(heads: tuple[Envelope | Notice, ...], backend: Backend = Backend.REAL) -> Answer:
    """What this store has, when the caller asked for nothing else."""
    return Answer(heads, Provenance(backend, "local", None, int(bool(heads)), max(0, len(heads) - 1), False))
