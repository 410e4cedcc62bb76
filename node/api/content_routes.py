"""The route of the HTTP API for content by its CID: the same bytes, at whichever address they were written."""

from node.api import headers, serialize
from node.api.content import content_headers
from node.api.media import JSON_TYPE, preferred
from node.api.query import Query
from node.api.request import Request, Response
from node.api.route_reply import RouteReply
from node.node import Node
from protocols import cid
from protocols.errors import NotFound


async def get_content(node: Node, request: Request) -> RouteReply | Response:
    """The content that a CID names, from this node's store, with the type that one of its versions gives it."""
    Query(request)
    name = request.path.rpartition("/")[2]
    envelope = await node.store.by_content(cid.decode(name))
    if envelope is None:
        raise NotFound(
            f"this node holds no content with the CID {name}, and asks no other node for content by its CID; read it "
            "by its address", cid=name,
        )  # fmt: skip
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
    if is_json:
        return RouteReply(data=serialize.content(envelope), headers=found)
    return Response(envelope.content, headers=[*found.items(), *content_headers(envelope.content_type).items()])
