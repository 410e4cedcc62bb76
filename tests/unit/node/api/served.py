"""A client of the API over a whole node in memory: requests go straight into the middleware, without a socket."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from node.api.limits import RequestLimits
from node.api.media import JSON_TYPE
from node.api.middleware import ApiAccess, Middleware
from node.api.router import router
from node.node import Node
from protocols.errors import NotFound
from protocols.keys import PrivateKey
from tests.unit.node.api.direct import Direct

KEY = PrivateKey.from_seed(b"\x01" * 32)
OTHER = PrivateKey.from_seed(b"\x02" * 32)
ADDRESS = "ucxl://agent:role@project:task/*^/notes/a.md"
BARE = "ucxl://agent:role@project:task"
ENVELOPE = "/v1/envelope"
LOOPBACK = ApiAccess(is_loopback=True, token=None)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Api:
    """A client of one node, which checks the shape of every answer."""

    def __init__(self, node: Node, client: httpx.AsyncClient) -> None:
        self.node = node
        self.client = client

    async def __call__(self, method: str, path: str, **more: Any) -> httpx.Response:
        response = await self.client.request(method, path, **more)
        assert response.headers["x-request-id"]
        if (
            method != "HEAD"
            and response.headers.get("content-type") == JSON_TYPE
            and path.startswith(("/v1", "/health"))
        ):
            self._check_shape(response)
        return response

    def _check_shape(self, response: httpx.Response) -> None:
        try:
            payload = response.json()
        except ValueError:
            return  # content, served as it was written
        if "error" in payload:
            body = payload["error"]
            keys = {"code", "message", "details", "source", "path", "request_id", "timestamp", "cause", "retryable"}
        elif "response" in payload:
            body = payload["response"]
            keys = {"code", "message", "data", "details", "request_id", "timestamp"}
        else:
            return
        assert set(body) == keys
        assert body["code"].startswith(f"UCXL-{response.status_code}-")
        assert body["message"]
        assert body["request_id"] == response.headers["x-request-id"]
        assert body["timestamp"].endswith("Z")

    async def put(self, content: bytes = b"hello", address: str = ADDRESS, **more: Any) -> dict[str, Any]:
        response = await self("PUT", ENVELOPE, params={"address": address}, content=content, **more)
        assert response.status_code in (201, 202), response.text
        data: dict[str, Any] = response.json()["response"]["data"]
        return data

    async def get(self, address: str = ADDRESS, headers: Any = None, **query: Any) -> httpx.Response:
        return await self("GET", ENVELOPE, params={"address": address, **query}, headers=headers)

    async def refused(self, status: int, method: str, path: str, **more: Any) -> dict[str, Any]:
        response = await self(method, path, **more)
        assert response.status_code == status, response.text
        error: dict[str, Any] = response.json()["error"]
        return error


@asynccontextmanager
async def served(node: Node, access: ApiAccess = LOOPBACK, limits: RequestLimits | None = None) -> AsyncIterator[Api]:
    app = Middleware(router(node), access, now_ms=node.now_ms, limits=limits)
    transport = Direct(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
        yield Api(node, client)


class _Nothing:
    """A node that knows nothing: every call ends with `NotFound`."""

    def __getattr__(self, name: str) -> Any:
        return self

    def __call__(self, *args: Any, **more: Any) -> Any:
        raise NotFound("nothing")


API_OVER_NOTHING = Middleware(router(_Nothing()), LOOPBACK, now_ms=lambda: 0)  # type: ignore[arg-type]
