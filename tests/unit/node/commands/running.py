"""Runs commands of `bzzz` in this process, against a whole node in memory behind a real server on loopback.

Where a node would have to be in a rare state, a stand-in gives the answer that such a node gives.
"""

import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import trio
from click.testing import CliRunner, Result

from node import app
from node.api.listen import bind
from node.api.middleware import ApiAccess, Middleware
from node.api.router import router
from node.api.server import serve
from node.cli import cli
from node.config.settings import Settings
from node.environment import Environment
from node.store.memory.store import MemoryStore
from protocols.keys import PrivateKey

ADDRESS = "ucxl://agent:role@project:task/*^/notes/a.md"
TOKEN = "s3cret"


@contextmanager
def served(token: str | None = None) -> Iterator[str]:
    """A whole node on the mock backend, in a thread of its own, and the address of its API."""
    started: list[tuple[str, trio.lowlevel.TrioToken, trio.Event]] = []
    ready = threading.Event()

    async def live() -> None:
        world = Environment(
            key=PrivateKey.from_seed(b"\x01" * 32), network=None, store=MemoryStore(log_id="ab" * 8),
            now_ms=lambda: time.time_ns() // 1_000_000, chance=random.Random(0).random,
        )  # fmt: skip
        async with trio.open_nursery() as nursery:
            node = await nursery.start(app.run, world, Settings(backend="mock", name="n1"))
            middleware = Middleware(router(node), ApiAccess(is_loopback=True, token=token), now_ms=node.now_ms)
            stopping = trio.Event()
            async with trio.open_nursery() as front:
                url = await front.start(lambda task_status: serve(
                    middleware, bind("127.0.0.1:0"), stopping=stopping, now_ms=node.now_ms, task_status=task_status
                ))  # fmt: skip
                started.append((url, trio.lowlevel.current_trio_token(), stopping))
                ready.set()
            nursery.cancel_scope.cancel()

    thread = threading.Thread(target=trio.run, args=(live,), name="node")
    thread.start()
    assert ready.wait(60)
    url, trio_token, stopping = started[0]
    try:
        yield url
    finally:
        trio_token.run_sync_soon(stopping.set)
        thread.join(60)
        assert not thread.is_alive()


def bzzz(*arguments: str, stdin: bytes | None = None) -> Result:
    result = CliRunner().invoke(cli, arguments, input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def json_of(*arguments: str, stdin: bytes | None = None) -> Any:
    """What a command that succeeds answers in JSON: one line."""
    result = bzzz(*arguments, "--json", stdin=stdin)
    assert result.exit_code == 0, result.output
    assert result.stdout.count("\n") == 1
    return json.loads(result.stdout)


def put(content: bytes, *more: str, address: str = ADDRESS) -> Any:
    return json_of("put", address, "-", *more, stdin=content)


@contextmanager
def stand_in(status: int, payload: Any, headers: dict[str, str] | None = None) -> Iterator[str]:
    """Something that answers every request with this."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_PUT = do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, name="stand-in")
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
