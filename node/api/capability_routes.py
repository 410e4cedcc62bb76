"""The routes of the HTTP API about capabilities: those of this node, and what all nodes offer."""

from typing import Any

from node.api import headers, serialize
from node.api.body import json_object, refuse_unknown
from node.api.query import Query
from node.api.request import Request
from node.api.route_reply import RouteReply
from node.config.changes import read_reason
from node.node import Node
from protocols.errors import InvalidPayload

SERVICES_MAX = 1_000
"""Entries in one answer at most."""
_EXAMPLE = '{"capabilities": ["role:planner", "label:gpu=a100"]}'


async def get_capabilities(node: Node, request: Request) -> RouteReply:
    """What this node offers."""
    Query(request)
    return RouteReply(data=serialize.capabilities(node))


async def put_capabilities(node: Node, request: Request) -> RouteReply:
    """Replace what this node offers. The body has `capabilities`, a list of texts, or null for those configured; it may
    have the `revision` that they replace, `reason` and `author`."""
    Query(request)
    body = json_object(request.body)
    refuse_unknown(body, "capabilities", "revision", "reason", "author")
    reason, author = read_reason(body, author=headers.caller(request))
    await node.capabilities.change(
        _texts(body), author=author, reason=reason, revision=_revision(body.get("revision", ""))
    )
    count = len(node.capabilities.current)
    return RouteReply(
        data=serialize.capabilities(node),
        message=f"this node offers {count} {'capability' if count == 1 else 'capabilities'}",
    )


def _texts(body: dict[str, Any]) -> list[str] | None:
    texts = body.get("capabilities", ...)
    if texts is None:
        return None
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise InvalidPayload(
            f"the body has no list of capabilities; send one like {_EXAMPLE}, or null for those that are configured",
            field="capabilities", expected="a list of texts, or null",
        )  # fmt: skip
    return texts


def _revision(value: object) -> str:
    if not isinstance(value, str) or len(value) > 64:
        raise InvalidPayload("revision is not the text that GET /v1/capabilities answered", field="revision")
    return value


async def get_services(node: Node, request: Request) -> RouteReply:
    """What this node and others offer; with `capability` and `peer` only what these name."""
    query = Query(request, "capability", "peer", "limit")
    limit = query.number("limit", 1, SERVICES_MAX) or SERVICES_MAX
    offers = node.directory.offers(query.text("capability") or "", peer=query.text("peer") or "")
    return RouteReply(data={"services": [serialize.offer(offer) for offer in offers[:limit]], "total": len(offers)})
