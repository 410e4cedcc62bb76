"""HTTP callers in a process of their own: a number of kept connections, with one call after the other on each.

The client does as little as it can, so that the node is what is measured: requests are built beforehand, and only the
status line, the length and `Retry-After` of an answer are read. Callers wait as `Retry-After` says.
"""

import json
import secrets
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

import trio

from benchmarks.envelopes import sealed
from benchmarks.loads import load
from protocols.keys import PrivateKey

ENVELOPE = "application/vnd.bzzz.envelope"
HEAD_END = b"\r\n\r\n"


class CallerConnection:
    """One connection that is kept open."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._unread = bytearray()

    async def call(self, request: bytes) -> tuple[int, int]:
        """Send a whole request; return the status, and the seconds to wait before the next one."""
        await self._stream.send_all(request)
        while (end := self._unread.find(HEAD_END)) < 0:
            await self._more()
        head = bytes(self._unread[:end]).lower()
        length = _number(head, b"content-length:")
        whole = end + len(HEAD_END) + length
        while len(self._unread) < whole:
            await self._more()
        del self._unread[:whole]
        return int(head.split(b" ", 2)[1]), _number(head, b"retry-after:")

    async def _more(self) -> None:
        chunk = await self._stream.receive_some(65536)
        if not chunk:
            raise ConnectionError("the node closed the connection")
        self._unread += chunk


def _number(head: bytes, name: bytes) -> int:
    """The number in a header of an answer, 0 without it."""
    at = head.find(name)
    return int(head[at + len(name) :].split(b"\r\n", 1)[0]) if at >= 0 else 0


def requests_of(order: dict[str, Any]) -> list[bytes]:
    """The complete requests of a run: signed envelopes, plain content that the node signs, reads, or probes."""
    run, count, host = str(order["run"]), int(order["count"]), order["host"]
    addresses = [quote(f"ucxl://bench:writer@bzzz:{run}/*^/{number}", safe="") for number in range(count)]
    query = f"&timeout_ms={order['timeout_ms']}" if "timeout_ms" in order else ""
    match order["do"]:
        case "put":
            key = PrivateKey.from_seed(secrets.token_bytes(32))
            bodies = [each.encoded for each in sealed(key, count, run=run, start_ms=time.time_ns() // 1_000_000)]
            kind = ENVELOPE
        case "health":
            return [f"GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()] * count
        case "write":
            bodies, kind = [bytes(256)] * count, "application/octet-stream"
        case _:
            query = f"&consistency={order['consistency']}"
            rest = f"{query} HTTP/1.1\r\nHost: {host}\r\nAccept: {ENVELOPE}\r\n\r\n"
            return [f"GET /v1/envelope?address={address}{rest}".encode() for address in addresses]
    return [
        f"PUT /v1/envelope?address={address}{query} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
        for address, body in zip(addresses, bodies, strict=True)
    ]


async def run(order: dict[str, Any]) -> dict[str, Any]:
    requests = requests_of(order)
    wanted, is_read = order["status"], order["do"] in ("get", "health")
    host, _, port = order["host"].rpartition(":")
    free = [CallerConnection(await trio.open_tcp_stream(host, int(port))) for _ in range(order["callers"])]
    print("ready", flush=True)
    sys.stdin.readline()
    next_request, statuses = 0, Counter[int]()

    async def call_once() -> bool:
        nonlocal next_request
        connection = free.pop()
        try:
            request = requests[next_request % len(requests)]
            next_request += 1
            status, wait_seconds = await connection.call(request)
            statuses[status] += 1
            await trio.sleep(wait_seconds)
            return bool(status == wanted)
        finally:
            free.append(connection)

    call: Callable[[], Awaitable[bool]] = call_once
    most = 1 << 30 if is_read else len(requests)
    result = await load(call, callers=order["callers"], seconds=order["seconds"], most=most)
    return {**result, "statuses": statuses}


if __name__ == "__main__":
    print(json.dumps(trio.run(run, json.loads(sys.argv[1]))), flush=True)
