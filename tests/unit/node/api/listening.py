"""The HTTP server on loopback with a small application, and what its tests send to it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from node.api.limits import RequestLimits, ServerLimits
from node.api.listen import bind
from node.api.middleware import ApiAccess, Middleware
from node.api.request import Request, Response
from node.api.server import serve

QUICK = ServerLimits(
    header_seconds_max=0.6, idle_seconds_max=0.8, write_seconds_max=0.6, linger_seconds_max=0.6, grace_seconds=0.6
)
"""Soon enough for a test, and long enough for an honest client on a busy machine."""
PATIENT = ServerLimits()
BIG = 32 * 1024 * 1024


async def app(request: Request) -> Response:
    """Answers with the size of the body; certain paths sleep, fail or give a large answer."""
    if request.path == "/sleep":
        await trio.sleep_forever()
    if request.path == "/nap":
        await trio.sleep(0.1)
    if request.path == "/big":
        return Response(b"x" * BIG)
    if request.path == "/raise":
        raise RuntimeError("a defect")
    return Response(b"%d" % len(request.body))


class Server:
    def __init__(self, where: tuple[str, int], stop: Callable[[], Awaitable[None]]) -> None:
        self.where = where
        self.stop = stop

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream(*self.where)

    async def get(self, path: str = "/", *, method: str = "GET") -> bytes:
        stream = await self.connect()
        async with stream:
            await stream.send_all(request(path, close=True, method=method))
            return await read_all(stream)

    async def is_writing(self) -> bool:
        return is_status(200, await self.get(method="PUT"))

    async def is_answering(self) -> bool:
        return is_status(200, await self.get())


def request(path: str = "/", *, close: bool = False, method: str = "GET", headers: str = "") -> bytes:
    last = "Connection: close" if close else "X-Keep: 1"
    return f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}{last}\r\n\r\n".encode()


def is_status(status: int, answer: bytes) -> bool:
    return answer.startswith(b"HTTP/1.1 %d" % status)


async def read_all(stream: trio.SocketStream) -> bytes:
    """Until the server closes."""
    found = b""
    while data := await stream.receive_some(65536):
        found += data
    return found


@asynccontextmanager
async def running(limits: ServerLimits = PATIENT, body: RequestLimits | None = None) -> AsyncIterator[Server]:
    stopping, stopped = trio.Event(), trio.Event()
    api = Middleware(app, ApiAccess(is_loopback=True, token=None), now_ms=lambda: 0, limits=body or RequestLimits())
    listening = bind("127.0.0.1:0")
    where = listening.getsockname()

    async def live(task_status: trio.TaskStatus[str]) -> None:
        await serve(api, listening, now_ms=lambda: 0, stopping=stopping, limits=limits, task_status=task_status)
        stopped.set()

    async def stop() -> None:
        stopping.set()
        await stopped.wait()

    async with trio.open_nursery() as nursery:
        assert await nursery.start(live) == f"http://127.0.0.1:{where[1]}"
        yield Server(where, stop)
        await stop()
