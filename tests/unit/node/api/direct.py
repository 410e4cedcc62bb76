"""A transport of httpx that hands requests to the middleware in this task, without a socket."""

from urllib.parse import unquote

import httpx

from node.api.connection import App
from node.api.request import Request


class Direct(httpx.AsyncBaseTransport):
    """Answers with `app`, as a connection would."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = await request.aread()
        path, _, query = request.url.raw_path.partition(b"?")
        response = await self._app(
            Request(
                method=request.method,
                path=unquote(path.decode("ascii")),
                query=query,
                headers={name.lower(): value for name, value in request.headers.raw},
                pieces=[body],
                size_bytes=len(body),
            )
        )
        head, _, content = response.encoded(is_head=request.method == "HEAD").partition(b"\r\n\r\n")
        lines = [line.split(b": ", 1) for line in head.split(b"\r\n")[1:]]
        return httpx.Response(response.status, headers=[(name, value) for name, value in lines], content=content)
