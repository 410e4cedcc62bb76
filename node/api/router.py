"""The router: finds the route's function for a path and a method, calls it, and encodes its reply."""

import difflib
from collections.abc import Mapping

import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from node.api import serialize
from node.api.media import JSON_TYPE
from node.api.route_reply import RouteReply
from node.api.routes import RESOURCES, RouteFunction
from node.node import Node
from protocols.errors import BzzzError, Internal, MethodNotAllowed, NotFound


def router(node: Node) -> ASGIApp:
    """The routes as an ASGI application. It raises `BzzzError`s: the middleware turns them into answers."""
    return Router(
        [Route(path, _Resource(node, path, methods)) for path, methods in RESOURCES.items()],
        redirect_slashes=False,
        default=_unknown_path,
    )


class _Resource:
    """One path: finds the function for the method and sends its reply."""

    def __init__(self, node: Node, path: str, methods: Mapping[str, RouteFunction]) -> None:
        self._node = node
        self._path = path
        self._methods = {**methods, "HEAD": methods["GET"]} if "GET" in methods else methods

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["method"]
        function = self._methods.get(method)
        if function is None:
            raise MethodNotAllowed(
                f"{self._path} does not take {method}", method=method, allow=sorted(self._methods), path=self._path
            )
        reply = await self._call(function, Request(scope, receive))
        response = reply if isinstance(reply, Response) else self._encoded(reply, scope["state"]["request_id"])
        await response(scope, receive, send)

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
        status = int(reply.code.split("-", 2)[1])
        return Response(body, status_code=status, headers={**reply.headers, "Content-Type": JSON_TYPE})


async def _unknown_path(scope: Scope, receive: Receive, send: Send) -> None:
    near = difflib.get_close_matches(scope["path"], RESOURCES, n=1, cutoff=0.6)
    hint = f"; did you mean {near[0]}?" if near else f"; the paths are {', '.join(RESOURCES)}"
    raise NotFound(f"this API has no path {scope['path'][:200]}{hint}", path=scope["path"][:200])
