"""A client of one virtual node: makes the calls of a plan, and puts what came of them into the words of a history."""

from collections.abc import Callable, Iterable
from functools import lru_cache

from netsim.history import DIGEST_DIGITS, Outcome, ReceiptRecord, Ref, Sight
from netsim.scenario.model import Parents
from netsim.scenario.plan import Call
from netsim.world import CallResult
from node.dht.base import Consistency
from node.node import Node
from node.services.writes.author import WriteRequest
from protocols.envelope import Envelope, Notice
from protocols.errors import BzzzError, Indeterminate
from protocols.ucxl import Address, parse

OP = "op"
"""The entry of an envelope's meta that names the operation that wrote it."""


@lru_cache(maxsize=4096)
def address_of(key: str) -> Address:
    """The UCXL address behind a key's name."""
    return parse(f"ucxl://sim:client@bzzz:world/*^/{key}")


def short(digest: bytes) -> str:
    """As a history writes a digest."""
    return digest.hex()[:DIGEST_DIGITS]


def ref_of(item: Envelope | Notice, name_of: Callable[[str], str]) -> Ref:
    op = item.meta.get(OP, "0") if isinstance(item, Envelope) else "0"
    return Ref(
        short(item.digest), item.version, name_of(item.author), int(op) if op.isdecimal() else 0, item.deleted,
        tuple(map(short, item.parents)), isinstance(item, Envelope),
    )  # fmt: skip


class VirtualClient:
    """`name_of` turns a peer id into the node's name."""

    def __init__(self, name_of: Callable[[str], str]) -> None:
        self._name_of = name_of
        self._full: dict[str, bytes] = {}

    def whole(self, digest: str) -> bytes:
        """The digest that a history shortens; of no version at all when none of ours was answered with it."""
        return self._full.get(digest, b"")

    async def call(self, node: Node, call: Call, parents: Iterable[str]) -> CallResult:
        try:
            if call.is_write:
                return await self._write(node, call, parents)
            return await self._read(node, call)
        except Indeterminate as error:
            digest = str(error.details.get("digest", ""))[:DIGEST_DIGITS]
            return CallResult(outcome=Outcome.UNKNOWN, error=_in_words(error), digest=digest)
        except BzzzError as error:
            return CallResult(outcome=Outcome.FAILED, error=_in_words(error))

    async def _write(self, node: Node, call: Call, parents: Iterable[str]) -> CallResult:
        named: tuple[bytes, ...] | None = None
        if call.how == Parents.NONE:
            named = ()
        elif call.how == Parents.SEEN:
            named = tuple(self._full[digest] for digest in parents if digest in self._full)
        write = WriteRequest(
            address=address_of(call.key),
            content=call.content(),
            content_type="text/plain",
            meta={OP: str(call.id)},
            parents=named,
            deleted=call.kind == "delete",
        )
        receipt = await node.author.write(write)
        self._full[short(receipt.digest)] = receipt.digest
        return CallResult(
            outcome=Outcome.OK,
            digest=short(receipt.digest),
            receipt=ReceiptRecord(
                digest=short(receipt.digest),
                version=receipt.version,
                parents=tuple(map(short, receipt.parents)),
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
        answer = await node.dht.get(address_of(call.key).key, consistency=Consistency(call.how))
        for head in answer.heads:
            self._full[short(head.digest)] = head.digest
        told = answer.provenance
        return CallResult(
            outcome=Outcome.OK,
            sight=Sight(
                heads=tuple(ref_of(head, self._name_of) for head in answer.heads),
                backend=str(told.backend),
                source=told.source,
                age_ms=told.age_ms,
                replicas=told.replicas,
                siblings=told.siblings,
                is_degraded=told.is_degraded,
                reason=told.reason,
            ),
        )


def _in_words(error: BzzzError) -> str:
    return f"{type(error).__name__}: {error.message}"
