"""The routes of the HTTP API that write versions, and the receipts of writes."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import trio

from node.api import headers, serialize
from node.api.media import ENVELOPE_TYPE, check_content
from node.api.query import Query
from node.api.request import Request
from node.api.route_reply import RouteReply
from node.dht.base import Durability, Receipt
from node.node import Node
from node.services.writes.admission import Turn
from node.services.writes.write_request import WriteRequest
from protocols import errors
from protocols.errors import InvalidPayload

REPLICATED_SECONDS = 10.0
"""How long `replicated=true` waits when no `timeout_ms` is given."""


async def put_envelope(node: Node, request: Request) -> RouteReply:
    """Write a version: content with its headers, or a signed envelope unchanged."""
    return await _write(node, request, must_be_absent=False)


async def post_envelope(node: Node, request: Request) -> RouteReply:
    """Write the first version of an address: 409 when the address has a version already."""
    return await _write(node, request, must_be_absent=True)


async def delete_envelope(node: Node, request: Request) -> RouteReply:
    """Write a tombstone. The history stays."""
    query = Query(request, "address", "replicated", "timeout_ms")
    async with _turn(node, query) as began:
        write = WriteRequest(
            address=query.address_to_write(),
            deleted=True,
            meta=headers.meta(request),
            parents=headers.parents(request),
            idempotency_key=headers.idempotency_key(request),
            timeout=_timeout(query),
            **_only_if(request, must_be_absent=False),
        )
        return await _written(node, query, lambda: node.author.write(write, began=began))


async def _write(node: Node, request: Request, *, must_be_absent: bool) -> RouteReply:
    query = Query(request, "address", "replicated", "timeout_ms")
    async with _turn(node, query) as began:
        return await _write_admitted(node, request, query, must_be_absent=must_be_absent, began=began)


def _turn(node: Node, query: Query) -> Turn:
    """Wait with a write until it may begin; see `Admission`."""
    return node.admission.turn(_timeout(query) or node.dht.deadline_seconds)


async def _write_admitted(
    node: Node, request: Request, query: Query, *, must_be_absent: bool, began: float
) -> RouteReply:
    media_type = headers.content_type(request)
    if media_type.partition(";")[0].strip().lower() == ENVELOPE_TYPE:
        return await _write_signed(node, request, query, must_be_absent=must_be_absent, began=began)
    address = query.address_to_write()
    content = request.body
    check_content(content, media_type)
    write = WriteRequest(
        address=address,
        content=content,
        content_type=media_type,
        meta=headers.meta(request),
        parents=headers.parents(request),
        idempotency_key=headers.idempotency_key(request),
        timeout=_timeout(query),
        **_only_if(request, must_be_absent=must_be_absent),
    )
    reply = await _written(node, query, lambda: node.author.write(write, began=began))
    if media_type.partition(";")[0].strip().lower() == FORM_TYPE:
        reply = replace(reply, message=f"{reply.message}; {_FORM_HINT}")
    return reply


async def _write_signed(
    node: Node, request: Request, query: Query, *, must_be_absent: bool, began: float
) -> RouteReply:
    """A signed envelope has its own address, parents and meta. A request that contradicts them is refused."""
    if headers.meta(request) or headers.parents(request) is not None:
        raise InvalidPayload(
            "a signed envelope has its own meta and parents; leave out UCXL-Meta-* and UCXL-Parents",
            field="headers", expected="no UCXL-Meta-* and no UCXL-Parents",
        )  # fmt: skip
    address = query.address_to_write() if query.text("address") else None
    encoded = request.body
    key = headers.idempotency_key(request)
    conditions = _only_if(request, must_be_absent=must_be_absent)
    return await _written(
        node,
        query,
        lambda: node.author.write_envelope(
            encoded, address=address, idempotency_key=key, timeout=_timeout(query), began=began, **conditions
        ),
    )


def _only_if(request: Request, *, must_be_absent: bool) -> dict[str, Any]:
    conditions = headers.conditions(request)
    return {**conditions, "must_be_absent": True} if must_be_absent else conditions


def _timeout(query: Query) -> float | None:
    """Seconds for a write: `timeout_ms`, else 10 with `replicated=true`, else None (the backend's deadline)."""
    return query.timeout() or (REPLICATED_SECONDS if query.flag("replicated") else None)


async def _written(node: Node, query: Query, write: Callable[[], Awaitable[Receipt]]) -> RouteReply:
    deadline = trio.current_time() + (_timeout(query) or 0.0)
    receipt = await write()
    if query.flag("replicated"):
        receipt = await _replicated(node, receipt, deadline)
    return _receipt(receipt, code=errors.CREATED if receipt.is_replicated else errors.ACCEPTED)


async def _replicated(node: Node, receipt: Receipt, deadline: float) -> Receipt:
    """Wait until the write quorum has the version, or until the deadline. No wait if no peer will ever be asked."""
    seconds_left = deadline - trio.current_time()
    if receipt.is_replicated or receipt.durability is Durability.LOCAL or seconds_left <= 0:
        return receipt
    started = trio.current_time()
    later = await node.receipts.replicated(receipt.digest, timeout=seconds_left)
    return later._replace(
        elapsed_ms=receipt.elapsed_ms + (trio.current_time() - started) * 1000.0,
        is_conditional=receipt.is_conditional,
        may_be_sibling=receipt.may_be_sibling,
    )


def _receipt(receipt: Receipt, *, code: str) -> RouteReply:
    return RouteReply(
        data=serialize.receipt(receipt),
        message=_in_words(receipt),
        code=code,
        headers={
            "ETag": f'"{receipt.digest.hex()}"',
            "UCXL-Digest": receipt.digest.hex(),
            "UCXL-Version": str(receipt.version),
        },
    )


def _in_words(receipt: Receipt) -> str:
    words = _DURABILITY_IN_WORDS[receipt.durability].format(receipt)
    if receipt.siblings:
        words += f"; beside {receipt.siblings} {'other' if receipt.siblings == 1 else 'others'}"
    if receipt.is_conditional:
        words += "; the condition held on this node, and other nodes were not locked"
    if receipt.may_be_sibling:
        words += f"; made on what this node has, and it may be a sibling of what others have: {receipt.may_be_sibling}"
    return words


FORM_TYPE = "application/x-www-form-urlencoded"
_FORM_HINT = (
    f"its type is {FORM_TYPE}, which 'curl -d' sends by itself: name the real one with -H 'Content-Type: text/plain', "
    "and send the content with --data-binary"
)
_DURABILITY_IN_WORDS = {
    Durability.REPLICATED: "replicated: {0.acknowledged} of {0.wanted} holders have it",
    Durability.AT_RISK: "replicated, but not to every holder yet: {0.acknowledged} of {0.wanted} have it",
    Durability.PENDING: "stored on this node; {0.acknowledged} of {0.wanted} holders have it so far",
    Durability.LOCAL: "stored on this node alone; backend mock asks no other node",
}


async def get_receipt(node: Node, request: Request) -> RouteReply:
    """How durable a write is now, found by its digest or by its place in this node's log."""
    query = Query(request, "log", "sequence", "digest", "replicated", "timeout_ms")
    digest, log, sequence = query.digest(), query.text("log"), query.number("sequence", 1, 2**63 - 1)
    if (digest is None) == (sequence is None) or (log is None) != (sequence is None):
        raise InvalidPayload(
            "ask for a receipt with digest=..., or with log=... and sequence=...",
            field="query", expected="digest, or log and sequence",
        )  # fmt: skip
    deadline = trio.current_time() + (_timeout(query) or 0.0)
    receipt = await node.receipts.find(log_id=log, sequence=sequence, digest=digest)
    if query.flag("replicated"):
        receipt = await _replicated(node, receipt, deadline)
    return _receipt(receipt, code=errors.OK)
