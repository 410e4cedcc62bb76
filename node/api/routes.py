"""The routes of the HTTP API: one function for each path and method, from a request to a reply, over the `Node`.

`RESOURCES` lists them all. A function returns a `RouteReply`, which is sent as JSON in the UCXL shape, or a
`Response` where content itself is served. It may raise an error of `protocols.errors`, which the middleware turns into
an answer. The reference for users is `docs/http-api.md`.
"""

from collections.abc import Awaitable, Callable, Mapping

from node.api import exposition, headers, serialize
from node.api.body import json_object, refuse_unknown
from node.api.capability_routes import get_capabilities, get_services, put_capabilities
from node.api.content import ServedVersion, serve_content
from node.api.content_routes import get_content
from node.api.media import JSON_TYPE, preferred
from node.api.query import Query
from node.api.request import Request, Response
from node.api.route_reply import RouteReply
from node.api.write_routes import delete_envelope, get_receipt, post_envelope, put_envelope
from node.config.changes import read_change, read_reason
from node.node import Node
from protocols.errors import InvalidPayload, NotFound, Unavailable

LIST_MAX = 1_000
"""Entries in one answer at most: versions, hints or lines of the audit log."""

PEERS_USUAL = 200
"""Nodes in one answer when no other number is asked for."""

RouteFunction = Callable[[Node, Request], Awaitable[RouteReply | Response]]


# -- reading ----------------------------------------------------------------------------------------------------------


async def get_envelope(node: Node, request: Request) -> RouteReply | Response:
    """One version, in the form that `Accept` asks for: its content, JSON, or the signed envelope."""
    query = Query(request, "address", "consistency", "digest", "timeout_ms")
    answer = await node.resolver.resolve(
        query.address(), consistency=query.consistency(), digest=query.digest(), timeout=query.timeout()
    )
    found = ServedVersion.of(answer)
    form = preferred(headers.header(request, "accept"))
    found_headers = found.headers(form)
    if headers.is_unchanged(request, found.tag):
        return Response(status=304, headers=list(found_headers.items()))
    if form == JSON_TYPE:
        return RouteReply(data=found.as_json(), headers=found_headers)
    return serve_content(found, form, found_headers)


async def get_history(node: Node, request: Request) -> RouteReply:
    """The versions of an address, the first one first."""
    query = Query(request, "address", "consistency", "after", "limit", "timeout_ms")
    after, limit = query.number("after", 0, 2**31), query.number("limit", 1, LIST_MAX)
    history = await node.resolver.history(
        query.address(),
        consistency=query.consistency(),
        after=after or 0,
        limit=limit or LIST_MAX,
        timeout=query.timeout(),
    )
    return RouteReply(data=serialize.history(history))


# -- the node ---------------------------------------------------------------------------------------------------------


async def get_peers(node: Node, request: Request) -> RouteReply:
    """The other nodes, a page at a time: strangers can make up thousands of them."""
    query = Query(request, "after", "limit")
    after, limit = query.number("after", 0, 2**31) or 0, query.number("limit", 1, LIST_MAX) or PEERS_USUAL
    peers, total = node.peer_list.page(after=after, limit=limit)
    return RouteReply(data=serialize.peers(peers, after=after, total=total))


async def get_discovery(node: Node, request: Request) -> RouteReply:
    Query(request)
    return RouteReply(data={"finders": [serialize.finder(finder.health()) for finder in node.finders]})


async def post_peers_forget(node: Node, request: Request) -> RouteReply:
    """Remove a member that is away. The body is a JSON object with `peer_id`, and may have `reason` and `author`."""
    Query(request)
    data = json_object(request.body)
    refuse_unknown(data, "peer_id", "reason", "author")
    peer = data.get("peer_id")
    if not isinstance(peer, str) or not peer:
        raise InvalidPayload(
            "the body names no member; send {\"peer_id\": \"12D3KooW...\"}",
            field="peer_id", provided=str(peer)[:100], expected="the peer id of a member",
        )  # fmt: skip
    reason, author = read_reason(data, author=headers.caller(request))
    status, hints = await node.forget_peer(peer, author=author, reason=reason)
    versions = "1 version that it did not have goes" if hints == 1 else f"{hints} versions that it did not have go"
    return RouteReply(
        data={"forgotten": serialize.peer(status), "owed": hints},
        message=f"{status.name or peer} is forgotten; {versions} to the members that hold in its place",
    )


async def get_node(node: Node, request: Request) -> RouteReply:
    Query(request)
    return RouteReply(
        data={
            "peer_id": node.peer_id,
            "name": node.name,
            "network": node.network_name,
            "private": node.is_private,
            "backend": node.dht.backend.value,
            "multiaddrs": list(node.addresses()),
            "started_at": serialize.rfc3339(node.started_ms),
            "uptime_ms": max(0, node.now_ms() - node.started_ms),
            "log": node.store.log_id,
            "sequence": node.store.last_sequence,
            "lacks": node.members.lacking(is_in_swarm=node.breaker is not None),
            "resolver": serialize.counts(node.resolver.counts),
        }
    )


async def get_bootstrap(node: Node, request: Request) -> RouteReply:
    """What another node needs in order to connect, and nothing else: this path needs no token."""
    Query(request)
    return RouteReply(
        data={"peer_id": node.peer_id, "multiaddrs": list(node.addresses()), "network": node.network_name}
    )


async def get_pending(node: Node, request: Request) -> RouteReply:
    """How many hints wait; with `state=owed` or `state=refused` also the hints themselves."""
    query = Query(request, "state", "limit")
    state = query.text("state")
    if state not in (None, "owed", "refused"):
        raise InvalidPayload(
            f"state is {state!r}; it must be owed or refused", field="state", provided=state, expected="owed or refused"
        )
    limit = query.number("limit", 1, LIST_MAX) or LIST_MAX
    hints = None if state is None else await node.store.hints(is_refused=state == "refused", limit=limit)
    return RouteReply(data=serialize.pending(node.store.pending(), hints, now_ms=node.now_ms()))


async def get_at_risk(node: Node, request: Request) -> RouteReply:
    """The addresses of which fewer nodes have the versions than should, by how many are missing."""
    Query(request)
    return RouteReply(data=serialize.at_risk(node, await node.risk.look()))


async def post_pending_retry(node: Node, request: Request) -> RouteReply:
    """Make every hint that was refused for good due again. The body may be a JSON object with `reason` and `author`."""
    Query(request)
    body = request.body
    data = json_object(body) if body else {}
    refuse_unknown(data, "reason", "author")
    reason, author = read_reason(data, author=headers.caller(request))
    count = await node.retry_quarantined(author=author, reason=reason)
    return RouteReply(
        data={"retried": count, **serialize.pending(node.store.pending(), None, now_ms=node.now_ms())},
        message=f"{count} {'hint is' if count == 1 else 'hints are'} due again"
        if count
        else "no hint was refused for good",
    )


async def get_health(node: Node, request: Request) -> RouteReply:
    Query(request)
    report = node.health()
    if report.status == "failed":
        raise Unavailable("; ".join(report.reasons) or "this node has failed", **serialize.health(report))
    return RouteReply(data=serialize.health(report), message="; ".join(report.reasons) or report.status)


async def get_flags(node: Node, request: Request) -> RouteReply:
    """The settings that can change while the node runs: the values in force, and who set each."""
    Query(request)
    return RouteReply(data=serialize.flags(node), message="; ".join(node.flags.notes()) or "ok")


async def patch_flags(node: Node, request: Request) -> RouteReply:
    """Change flags, all of them or none: a JSON object of names and values, with a `reason` and an `author`."""
    Query(request)
    body = json_object(request.body)
    await node.flags.change(read_change(body, author=headers.caller(request)))
    return RouteReply(data=serialize.flags(node), message="; ".join(node.flags.notes()) or "ok")


async def get_audit(node: Node, request: Request) -> RouteReply:
    """Lines of the audit log, unchanged, so that a client can check their hashes and signatures."""
    query = Query(request, "after", "limit")
    after, limit = query.number("after", 0, 2**31) or 0, query.number("limit", 1, LIST_MAX) or LIST_MAX
    lines = await node.audit.lines(after=after, limit=limit)
    return RouteReply(data=serialize.audit(node, lines, after=after))


async def post_audit_rotate(node: Node, request: Request) -> RouteReply:
    """Begin a new file of the audit log. The body may be a JSON object with `reason` and `author`."""
    Query(request)
    body = request.body
    data = json_object(body) if body else {}
    refuse_unknown(data, "reason", "author")
    reason, author = read_reason(data, author=headers.caller(request))
    name = await node.audit.rotate(author=author, reason=reason)
    return RouteReply(
        data={"file": name, "entries": node.audit.sequence, "head": node.audit.head},
        message=f"the audit log goes on in a new file; the one before is {name}",
    )


async def get_ready(node: Node, request: Request) -> RouteReply:
    """Always 200: the API is served only while the node answers calls."""
    Query(request)
    return RouteReply(data={"ready": True})


async def get_metrics(node: Node, request: Request) -> Response:
    """The node's metrics, in the text format of Prometheus."""
    Query(request)
    if node.meters is None:
        raise NotFound(
            "metrics are switched off on this node; start it with BZZZ_METRICS_ENABLED=true", path="/metrics"
        )
    return Response(exposition.exposition(node.meters), headers=[("Content-Type", exposition.CONTENT_TYPE)])


RESOURCES: Mapping[str, Mapping[str, RouteFunction]] = {
    "/v1/envelope": {"GET": get_envelope, "PUT": put_envelope, "POST": post_envelope, "DELETE": delete_envelope},
    "/v1/content/CID": {"GET": get_content},
    "/v1/history": {"GET": get_history},
    "/v1/receipt": {"GET": get_receipt},
    "/v1/peers": {"GET": get_peers},
    "/v1/peers/forget": {"POST": post_peers_forget},
    "/v1/discovery": {"GET": get_discovery},
    "/v1/node": {"GET": get_node},
    "/v1/bootstrap": {"GET": get_bootstrap},
    "/v1/pending": {"GET": get_pending},
    "/v1/pending/retry": {"POST": post_pending_retry},
    "/v1/at-risk": {"GET": get_at_risk},
    "/v1/capabilities": {"GET": get_capabilities, "PUT": put_capabilities},
    "/v1/services": {"GET": get_services},
    "/v1/flags": {"GET": get_flags, "PATCH": patch_flags},
    "/v1/audit": {"GET": get_audit},
    "/v1/audit/rotate": {"POST": post_audit_rotate},
    "/health": {"GET": get_health},
    "/ready": {"GET": get_ready},
    "/metrics": {"GET": get_metrics},
}
