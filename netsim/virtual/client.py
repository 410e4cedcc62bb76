"""A client of a virtual node: makes the calls of a plan, and records their results for the history."""

import contextlib
from collections.abc import Callable, Iterable

import trio

from netsim.history import DIGEST_DIGITS, AnswerRecord, Outcome, ReceiptRecord, ShownVersion, short_digest
from netsim.workload import OPERATION_META, Call, Parents, address_of
from netsim.world import CallResult
from node.dht.base import Consistency
from node.node import Node
from node.services.writes.write_request import WriteRequest
from protocols.envelope import Envelope, Notice
from protocols.errors import BzzzError, Indeterminate


def shown_version(item: Envelope | Notice, name_of: Callable[[str], str]) -> ShownVersion:
    op = item.meta.get(OPERATION_META, "0")
    return ShownVersion(
        short_digest(item.digest), item.version, name_of(item.author), int(op) if op.isdecimal() else 0, item.deleted,
        tuple(map(short_digest, item.parents)), isinstance(item, Envelope),
    )  # fmt: skip


class VirtualClient:
    """One for all nodes. `name_of` turns a peer id into the node's name."""

    def __init__(self, name_of: Callable[[str], str]) -> None:
        self._name_of = name_of
        self._digests: dict[str, bytes] = {}
        """By short digest: the digests that nodes have shown."""

    def full_digest(self, short: str) -> bytes:
        """The digest that a history shortens; b'' when no node has shown it."""
        return self._digests.get(short, b"")

    async def call(self, node: Node, call: Call, parents: Iterable[str]) -> CallResult:
        try:
            if call.is_write:
                return await self._write(node, call, parents)
            return await self._read(node, call)
        except Indeterminate as error:
            digest = str(error.details.get("digest", ""))[:DIGEST_DIGITS]
            return CallResult(outcome=Outcome.UNKNOWN, error=_error_text(error), digest=digest)
        except BzzzError as error:
            return CallResult(outcome=Outcome.FAILED, error=_error_text(error))

    async def _write(self, node: Node, call: Call, parents: Iterable[str]) -> CallResult:
        named: tuple[bytes, ...] | None = None
        if call.how == Parents.NONE:
            named = ()
        elif call.how == Parents.SEEN:
            named = tuple(self._digests[digest] for digest in parents if digest in self._digests)
        write = WriteRequest(
            address=address_of(call.key),
            content=call.content(),
            content_type="text/plain",
            meta={OPERATION_META: str(call.id)},
            parents=named,
            deleted=call.kind == "delete",
        )
        receipt = await node.author.write(write)
        digest = short_digest(receipt.digest)
        self._digests[digest] = receipt.digest
        return CallResult(
            outcome=Outcome.OK,
            digest=digest,
            receipt=ReceiptRecord(
                digest=digest,
                version=receipt.version,
                parents=tuple(map(short_digest, receipt.parents)),
                backend=str(receipt.backend),
                durability=str(receipt.durability),
                acknowledged=receipt.acknowledged,
                wanted=receipt.wanted,
                quorum=receipt.quorum,
                log_id=receipt.log_id,
                sequence=receipt.sequence,
            ),
        )

    async def _read(self, node: Node, call: Call) -> CallResult:
        address = address_of(call.key)
        if call.lists:
            with contextlib.suppress(BzzzError):
                await node.resolver.history(address, consistency=Consistency.SWARM)
        started = trio.current_time()
        answer = await node.dht.get(address.key, consistency=Consistency(call.how))
        for head in answer.heads:
            self._digests[short_digest(head.digest)] = head.digest
        provenance = answer.provenance
        return CallResult(
            outcome=Outcome.OK,
            node_seconds=trio.current_time() - started if call.lists else None,
            answer=AnswerRecord(
                heads=tuple(shown_version(head, self._name_of) for head in answer.heads),
                backend=str(provenance.backend),
                source=provenance.source,
                age_ms=provenance.age_ms,
                replicas=provenance.replicas,
                siblings=provenance.siblings,
                is_degraded=provenance.is_degraded,
                reason=provenance.reason,
            ),
        )


def _error_text(error: BzzzError) -> str:
    return f"{type(error).__name__}: {error.message}"
