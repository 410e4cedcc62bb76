"""The route of the HTTP API for content by its CID: the same bytes, at whichever address they were written."""

from node.api import headers, serialize
from node.api.content import content_headers
from node.api.media import JSON_TYPE, preferred
from node.api.query import Query
from node.api.request import Request, Response
from node.api.route_reply import RouteReply
from node.dht.base import Answer
from node.node import Node
from protocols import cid
from protocols.envelope import Envelope
from protocols.errors import NotFound


async def get_content(node: Node, request: Request) -> RouteReply | Response:
    """The content that a CID names, from this node's store or from a node that provides it, with the type that one of
    its versions gives it."""
    query = Query(request, "consistency", "timeout_ms")
    name = request.path.rpartition("/")[2]
    digest = cid.decode(name)
    form = preferred(headers.header(request, "accept"))
    is_json = form == JSON_TYPE
    found = {
        "ETag": f'W/"{name}"' if is_json else f'"{name}"',
        "Vary": "Accept",
        "Cache-Control": "private, max-age=31536000, immutable",
        "UCXL-CID": name,
    }
    if headers.is_unchanged(request, name):
        return Response(status=304, headers=list(found.items()))
    answer = await node.dht.get_content(digest, consistency=query.consistency(), timeout=query.timeout())
    envelope = _envelope(answer, name)
    found["UCXL-Source"] = answer.provenance.source
    if is_json:
        return RouteReply(data=serialize.content(envelope, answer.provenance.source), headers=found)
    return Response(envelope.content, headers=[*found.items(), *content_headers(envelope.content_type).items()])


def _envelope(answer: Answer, name: str) -> Envelope:
    """The version in an answer. Raises `NotFound`."""
    for head in answer.heads:
        if isinstance(head, Envelope):
            return head
    if answer.provenance.source == "local":
        raise NotFound(f"this node holds no content with the CID {name}, and no other node was asked", cid=name)
    raise NotFound(
        f"no node that provides content with the CID {name} was found, and none that was asked has it", cid=name
    )
