"""The router: finds the route's function for a path and a method, calls it, and encodes its reply."""

import difflib
from collections.abc import Mapping

import trio

from node.api import serialize
from node.api.connection import App
from node.api.media import JSON_TYPE
from node.api.paths import Paths
from node.api.request import Request, Response
from node.api.route_reply import RouteReply
from node.api.routes import RESOURCES, RouteFunction
from node.node import Node
from protocols.errors import BzzzError, Internal, MethodNotAllowed, NotFound


def router(node: Node) -> App:
    """The routes over a node. It raises `BzzzError`s: the middleware turns them into answers."""
    resources = {path: _Resource(node, path, methods) for path, methods in RESOURCES.items()}
    paths = Paths(RESOURCES)

    async def route(request: Request) -> Response:
        path = paths.find(request.path)
        if path is None:
            raise _unknown_path(request.path)
        return await resources[path].answer(request)

    return route


class _Resource:
    """One path: finds the function for the method and encodes its reply."""

    def __init__(self, node: Node, path: str, methods: Mapping[str, RouteFunction]) -> None:
        self._node = node
        self._path = path
        self._methods = {**methods, "HEAD": methods["GET"]} if "GET" in methods else methods

    async def answer(self, request: Request) -> Response:
        function = self._methods.get(request.method)
        if function is None:
            raise MethodNotAllowed(
                f"{self._path} does not take {request.method}",
                method=request.method, allow=sorted(self._methods), path=self._path,
            )  # fmt: skip
        reply = await self._call(function, request)
        return reply if isinstance(reply, Response) else self._encoded(reply, request.id)

    async def _call(self, function: RouteFunction, request: Request) -> RouteReply | Response:
        """Call the route, and record for the health report how long it took and whether this API failed."""
        api_calls, started = self._node.monitor.api_calls, trio.current_time()
        try:
            reply = await function(self._node, request)
        except Exception as problem:
            if isinstance(problem, BzzzError) and not isinstance(problem, Internal):
                api_calls.succeeded(trio.current_time() - started)
            else:
                why = f"an internal error ({type(problem).__name__}); the node's log has the details"
                api_calls.failed(why, trio.current_time() - started)
            raise
        api_calls.succeeded(trio.current_time() - started)
        return reply

    def _encoded(self, reply: RouteReply, request_id: str) -> Response:
        body = serialize.response(
            reply.code, reply.message, reply.data, request_id=request_id, now_ms=self._node.now_ms()
        )
        headers = [*reply.headers.items(), ("Content-Type", JSON_TYPE)]
        return Response(body, int(reply.code.split("-", 2)[1]), headers)


def _unknown_path(path: str) -> NotFound:
    near = difflib.get_close_matches(path, RESOURCES, n=1, cutoff=0.6)
    hint = f"; did you mean {near[0]}?" if near else f"; the paths are {', '.join(RESOURCES)}"
    return NotFound(f"this API has no path {path[:200]}{hint}", path=path[:200])
