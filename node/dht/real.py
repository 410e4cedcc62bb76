"""The real backend: the swarm answers, or the call says that it did not.

A put is staged here, handed to the holders, and becomes a version of this node when the write quorum of them has
committed it. A get unites what the holders know, keeps it, and answers; holders that lag are repaired afterwards.
`Unavailable` means that nothing was written (or nobody answered); `Indeterminate` that it may have been.
"""

import logging
from collections.abc import Awaitable, Callable
from math import inf

import trio

from node.config.flags import Flags
from node.dht import history_backfill
from node.dht.base import Answer, Backend, Consistency, Freshness, Provenance, Provider, Receipt, VersionHistory
from node.dht.hedged_query import QueryResult
from node.dht.ingest import Ingest
from node.dht.mock import PROVIDE_TTL_MS
from node.dht.replica_query import ReplicaQuery, is_majority
from node.dht.write_quorum import WriteQuorum
from node.store.base import Store
from node.store.hints import Standing
from node.store.log import Incoming, Origin
from node.swarm.delivery import Delivery
from node.swarm.members import Members
from node.swarm.rpc import Rpc
from protocols.envelope import Envelope, Notice, order_key
from protocols.errors import BzzzError, Indeterminate, StorageFull, Unavailable
from protocols.messages import (
    ENVELOPES_MAX,
    AddProvider,
    EnvelopesReply,
    GetByDigest,
    GetHeads,
    GetProviders,
    GetVersions,
    HeadsReply,
    ProviderAdded,
    ProvidersReply,
    VersionsReply,
)
from protocols.policy.signature_cache import SignatureCache

log = logging.getLogger(__name__)

WRITE_QUORUM = 2
"""How many peers must acknowledge a write where the flags name no quorum."""
_NEVER_FRESH = Freshness(-inf, 0.0)
_TOO_SLOW = "this node's disk is too slow to keep what the holders answered"


class RealDHT:
    """Deadline and quorums are those of the flags it is made with."""

    backend = Backend.REAL
    asks_swarm = True

    def __init__(
        self,
        *,
        store: Store,
        rpc: Rpc,
        delivery: Delivery,
        members: Members,
        verified: SignatureCache,
        now_ms: Callable[[], int],
        flags: Flags,
    ) -> None:
        self._store = store
        self._rpc = rpc
        self._delivery = delivery
        self._members = members
        self._now_ms = now_ms
        self.write_quorum = flags.write_quorum or WRITE_QUORUM
        self._read_quorum = flags.read_quorum
        self._holders = ReplicaQuery(rpc, members, at_first=flags.read_quorum)
        self._deadline = flags.real_deadline_ms / 1000.0
        self._ingest = Ingest(store, verified=verified, now_ms=now_ms, peer_policy=rpc.peer_policy)

    @property
    def deadline_seconds(self) -> float:
        """Stretched where answers take long."""
        return self._rpc.round_trips.stretch(self._deadline)

    def _until(self, timeout: float | None) -> float:
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
        deadline = self._until(timeout)
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
            with trio.move_on_at(deadline) as scope:
                await self._store.stage(envelope, idempotency_key=idempotency_key, now_ms=self._now_ms())
                votes = await self._collect(envelope, wanted)
                await self._judge(envelope, votes)
                standing = await self._keep(envelope, wanted, votes, idempotency_key)
            if scope.cancelled_caught or standing is None:
                raise self._indeterminate(envelope)
        if on_merged is not None:
            on_merged()
        return Receipt.of(
            envelope,
            standing._replace(wanted=max(standing.wanted, len(wanted))),
            log_id=self._store.log_id,
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

    async def _collect(self, envelope: Envelope, wanted: tuple[str, ...]) -> WriteQuorum:
        """Hand the envelope to its holders and wait until the votes decide."""
        peers = tuple(peer for peer in wanted if self._members.is_reachable(peer))
        if len(peers) < self.write_quorum:  # a suspect is better than nobody
            peers = wanted
        votes = WriteQuorum(
            envelope, peers, self.write_quorum, delivery=self._delivery, members=self._members, store=self._store
        )
        await votes.decided.wait()
        return votes

    async def _judge(self, envelope: Envelope, votes: WriteQuorum) -> None:
        if len(votes.acknowledged) >= votes.quorum:
            return
        if votes.unreachable == votes.handed:
            await self._store.unstage(envelope.digest)
            raise Unavailable("no member that should hold this is connected; nothing was written", asked=votes.handed)
        if votes.refusals and len(votes.refusals) + votes.unreachable == votes.handed:
            await self._store.unstage(envelope.digest)
            raise votes.refusals[0]
        raise self._indeterminate(
            envelope, f"{len(votes.acknowledged)} of {votes.handed} holders acknowledged it, {votes.quorum} are needed"
        )

    async def _keep(
        self, envelope: Envelope, wanted: tuple[str, ...], votes: WriteQuorum, idempotency_key: str | None
    ) -> Standing:
        acknowledged = tuple(votes.acknowledged)
        owed = tuple(peer for peer in wanted if peer not in acknowledged)
        incoming = Incoming(envelope, Origin.LOCAL, owed, acknowledged, idempotency_key)
        try:
            ((sequence, _),) = await self._store.merge((incoming,), now_ms=self._now_ms())
        except BzzzError as error:
            raise self._indeterminate(
                envelope, f"holders have it, but this node cannot keep it ({error.message})"
            ) from error
        votes.sequence = sequence
        late = [peer for peer in votes.acknowledged if peer not in acknowledged]
        for peer in late:
            self._store.acknowledge(peer, (sequence,))
        standing = await self._store.standing(sequence=sequence)
        return standing or Standing(sequence, envelope.digest, acknowledged, len(wanted), self._now_ms())

    # -- get --------------------------------------------------------------------------------------------------

    async def get(
        self, key: bytes, *, consistency: Consistency = Consistency.AUTO, timeout: float | None = None
    ) -> Answer:
        deadline = self._until(timeout)
        local = await self._store.heads(key)
        if consistency is Consistency.LOCAL:
            return local_answer(local)
        have = tuple(head.digest for head in local if isinstance(head, Envelope))[:ENVELOPES_MAX]
        asked, wanted = await self._ask_heads(key, have, deadline)
        united, note = await self._unite(key, asked, have, deadline)
        if not united and not is_majority(asked, wanted):
            raise self._holders.unanswered(asked, wanted)
        digests = {peer: r.digests for peer, r in asked.answers.items() if isinstance(r, HeadsReply)}
        if lacking := await self._lacking(united, digests):
            note = note or f"this node cannot take {lacking} heads that the holders named; its log says why"
            if not united:
                raise Unavailable(f"there is something, and it cannot be shown: {note}", answered=len(asked.answers))
        united = await self._without_gaps(key, united, digests, deadline)
        self._repair(united, digests, wanted)
        top = united[0].digest if united else b""
        replicas = sum(top in known for known in digests.values()) + any(head.digest == top for head in local)
        needed = min(self._read_quorum, len(wanted))
        if len(asked.answers) < needed:
            note = f"{len(asked.answers)} of {needed} holders answered"
        provenance = Provenance(Backend.REAL, "swarm", 0.0, replicas, max(0, len(united) - 1), bool(note), note)
        return Answer(united, provenance)

    async def _without_gaps(
        self, key: bytes, heads: tuple[Envelope | Notice, ...], named: dict[str, tuple[bytes, ...]], deadline: float
    ) -> tuple[Envelope | Notice, ...]:
        """The heads that are left when somebody who knows later ones has told what superseded ours."""
        current = {digest for digests in named.values() for digest in digests}
        ours = [head for head in heads if head.digest not in current]
        later = [peer for peer, digests in named.items() if digests]
        if not ours or not later:
            return heads
        try:
            with trio.move_on_at(deadline):
                await history_backfill.close(self._rpc, self._ingest, key, later[0], ours, deadline=deadline)
        except BzzzError as error:
            log.info("whether %d heads were superseded cannot be told now: %s", len(ours), error.message)
        return await self._store.heads(key)

    async def _ask_heads(
        self, key: bytes, have: tuple[bytes, ...], deadline: float
    ) -> tuple[QueryResult, tuple[str, ...]]:
        def is_enough(asked: QueryResult) -> bool:
            found = have or any(isinstance(r, HeadsReply) and r.digests for r in asked.answers.values())
            if found:
                return len(asked.answers) >= min(self._read_quorum, len(wanted))
            return is_majority(asked, wanted)

        wanted = self._members.wanted(key)
        asked = await self._holders.ask(wanted, lambda _: GetHeads(key, have), is_enough, deadline)
        return asked, wanted

    async def _unite(
        self, key: bytes, asked: QueryResult, have: tuple[bytes, ...], deadline: float
    ) -> tuple[tuple[Envelope | Notice, ...], str]:
        """What everybody knows, kept and then shown; and why that may be less than it, or ''."""
        answers = [(peer, r) for peer, r in asked.answers.items() if isinstance(r, HeadsReply)]
        encoded = [(peer, one) for peer, reply in answers for one in reply.envelopes]
        note = ""
        try:
            with trio.move_on_at(deadline) as scope:
                await self._ingest.learn(key, encoded)
                for peer, reply in answers:
                    await self._fetch_rest(key, peer, reply, have, deadline)
            if scope.cancelled_caught:
                note = _TOO_SLOW
        except BzzzError as error:
            note = f"this node cannot keep what the holders answered: {error.message}"
        return await self._store.heads(key), note

    async def _lacking(self, heads: tuple[Envelope | Notice, ...], named: dict[str, tuple[bytes, ...]]) -> int:
        """How many of the heads that peers named are not known here, even now."""
        known = {head.digest for head in heads}
        others = {digest for digests in named.values() for digest in digests if digest not in known}
        return sum([await self._store.by_digest(digest) is None for digest in sorted(others)])

    async def _fetch_rest(
        self, key: bytes, peer: str, reply: HeadsReply, have: tuple[bytes, ...], deadline: float
    ) -> None:
        """Heads that did not fit into a peer's answer: many siblings, or large ones."""
        missing = [digest for digest in reply.digests if digest not in have]
        told = len(reply.envelopes)
        while told and told < len(missing):
            missing = [d for d in missing if not isinstance(await self._store.by_digest(d), Envelope)]
            if not missing:
                return
            seconds = max(0.0, deadline - trio.current_time())
            more = await self._rpc.call(peer, GetByDigest(tuple(missing)), timeout=seconds)
            envelopes = more.envelopes if isinstance(more, EnvelopesReply) else ()
            told = len(envelopes)
            await self._ingest.learn(key, [(peer, one) for one in envelopes])

    def _repair(
        self, heads: tuple[Envelope | Notice, ...], known: dict[str, tuple[bytes, ...]], wanted: tuple[str, ...]
    ) -> None:
        """Hand holders that answered the heads that they did not know, after the answer, whatever becomes of it."""
        for peer, digests in known.items():
            for head in sorted(heads, key=order_key):
                if peer in wanted and head.digest not in digests and isinstance(head, Envelope):
                    self._delivery.deliver(peer, head, lambda _: None)

    async def get_version(
        self, key: bytes, digest: bytes, *, consistency: Consistency = Consistency.AUTO, timeout: float | None = None
    ) -> Answer:
        deadline = self._until(timeout)
        found = await self._store.by_digest(digest)
        if isinstance(found, Envelope) or consistency is Consistency.LOCAL:
            return local_answer((found,) if found is not None and found.key == key else ())

        good: dict[str, dict[bytes, Envelope]] = {}

        def has_it(asked: QueryResult) -> bool:
            for peer, reply in asked.answers.items():
                if peer not in good and isinstance(reply, EnvelopesReply):
                    good[peer] = self._ingest.sift(key, [(peer, one) for one in reply.envelopes])
            return any(digest in envelopes for envelopes in good.values())

        wanted = self._members.wanted(key)
        asked = await self._holders.ask(
            wanted, lambda _: GetByDigest((digest,)), lambda a: has_it(a) or is_majority(a, wanted), deadline
        )
        found = next((envelopes[digest] for envelopes in good.values() if digest in envelopes), None)
        if found is None:
            if not is_majority(asked, wanted):
                raise self._holders.unanswered(asked, wanted)
            return Answer((), Provenance(Backend.REAL, "swarm", 0.0, 0, 0, False))
        note = await self._in_time(self._ingest.keep((found,)), deadline)
        replicas = sum(digest in envelopes for envelopes in good.values())
        return Answer((found,), Provenance(Backend.REAL, "swarm", 0.0, replicas, 0, bool(note), note))

    async def _in_time(self, keeping: Awaitable[int], deadline: float) -> str:
        """Keep what was learned; why that could not be done, or ''. What is named by its digest may be shown anyway."""
        try:
            with trio.move_on_at(deadline) as scope:
                left_out = await keeping
        except (StorageFull, Unavailable) as error:
            return f"this node cannot keep what the holders answered: {error.message}"
        if scope.cancelled_caught:
            return _TOO_SLOW
        return f"this node cannot take {left_out} versions that the holders named; its log says why" if left_out else ""

    async def history(
        self, key: bytes, *, consistency: Consistency = Consistency.AUTO, after: int = 0, limit: int = 1000,
        timeout: float | None = None,
    ) -> VersionHistory:  # fmt: skip
        if consistency is Consistency.LOCAL:
            provenance = Provenance(Backend.REAL, "local", None, 1, 0, False)
        else:
            provenance = await self.gather_history(key, timeout=timeout)
        total = await self._store.count_versions(key)
        versions = await self._store.versions(key, after=after, limit=limit)
        return VersionHistory(tuple(versions), total, not provenance.is_degraded, provenance)

    async def gather_history(self, key: bytes, *, timeout: float | None = None) -> Provenance:
        """Have this store know every version that the holders know, and say where that is known from.

        It is degraded when fewer than a majority told all they know. Raises `Unavailable` when nothing is known then.
        """
        note = await self._note_versions(key, self._until(timeout))
        if note and not await self._store.count_versions(key):
            raise Unavailable(f"whether it has a history cannot be told now: {note}", answered=1)
        return Provenance(Backend.REAL, "swarm", 0.0, 1, 0, bool(note), note)

    async def _note_versions(self, key: bytes, deadline: float) -> str:
        """Note every version that the holders know, page by page; why that may be less than a majority's, or ''."""
        wanted = self._members.wanted(key)
        told = 0
        peers: list[str] = [peer for peer in wanted if self._members.is_reachable(peer)]
        after = 0
        if not peers:
            raise Unavailable("none of the members that should hold this can be reached", asked=0, wanted=len(wanted))
        while peers:
            asked = await self._holders.ask_all(tuple(peers), GetVersions(key, after, ENVELOPES_MAX), deadline)
            pages = {peer: r for peer, r in asked.answers.items() if isinstance(r, VersionsReply)}
            noting = self._ingest.note(key, [(peer, n) for peer, page in pages.items() for n in page.notices])
            if note := await self._in_time(noting, deadline):
                return note
            after += ENVELOPES_MAX
            told += sum(page.total <= after for page in pages.values())
            peers = [peer for peer, page in pages.items() if page.total > after]
        return "" if told * 2 > len(wanted) else f"{told} of the {len(wanted)} holders told all they know"

    # -- providers --------------------------------------------------------------------------------------------

    async def provide(self, key: bytes, *, timeout: float | None = None) -> int:
        deadline = self._until(timeout)
        await self._store.provide(key, self._members.own, expires_ms=self._now_ms() + PROVIDE_TTL_MS)
        wanted = self._members.wanted(key)
        asked = await self._holders.ask_all(wanted, AddProvider(key, PROVIDE_TTL_MS), deadline)
        return sum(isinstance(reply, ProviderAdded) for reply in asked.answers.values())

    async def find_providers(self, key: bytes, *, timeout: float | None = None) -> tuple[Provider, ...]:
        deadline = self._until(timeout)
        wanted = self._members.wanted(key)
        asked = await self._holders.ask(wanted, lambda _: GetProviders(key), lambda a: is_majority(a, wanted), deadline)
        found: dict[str, tuple[str, ...]] = {}
        for reply in asked.answers.values():
            for provider in reply.providers if isinstance(reply, ProvidersReply) else ():
                found.setdefault(provider.peer, provider.addresses)
        for peer in await self._store.providers(key, now_ms=self._now_ms()):
            found.setdefault(peer, ())
        return tuple(Provider(peer=peer, addresses=addresses) for peer, addresses in sorted(found.items()))


def local_answer(heads: tuple[Envelope | Notice, ...], backend: Backend = Backend.REAL) -> Answer:
    """What this store has, because nothing else was asked for."""
    return Answer(heads, Provenance(backend, "local", None, int(bool(heads)), max(0, len(heads) - 1), False))
