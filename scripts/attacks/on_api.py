"""At the HTTP API: slow, huge, broken, endless and foreign requests, and connections that are merely held."""

import os

import trio

from attacks.attack_run import Attack, Siege
from attacks.connections import Fell, Line
from attacks.http_client import request, status_of
from attacks.on_tcp import GARBAGE

SLOW = 60
HALF = 700
IDLE = 1_000
PIPELINED = 1_000
PUT = "/v1/envelope?address=ucxl%3A%2F%2Fa%3Ab%40c%3Ad%2F%2A%5E%2Fattacked"
ANSWER_SECONDS = 5.0


async def api_line(siege: Siege, *, receive_bytes: int = 0) -> Line:
    assert siege.target.api is not None, "the catalogue asks for these only where there is an API"
    return await siege.line(siege.target.api, receive_bytes=receive_bytes)


async def asked(siege: Siege, data: bytes) -> int:
    """The status that these bytes get, and no more after it. 0: the API hung up. Raises `Fell` when it does neither."""
    line = await api_line(siege)
    await line.send(data)
    line.finish()
    with trio.move_on_after(ANSWER_SECONDS):
        status = status_of(await line.read())
        line.close()
        return status
    raise Fell(f"{data[:60]!r}...{data[60:][-60:]!r} was neither answered nor hung up on within {ANSWER_SECONDS:g} s")


async def http_garbage(siege: Siege) -> None:
    """Bytes that are no HTTP, and HTTP that is broken, and not one of them is taken for a request."""
    broken = [
        *(garbage for garbage in GARBAGE if b"HTTP/1.1" not in garbage),
        b"\r\n" * 1000 + b"\0\r\n\r\n",
        b"GET /health\r\n\r\n",
        b"GET /health HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: example.org\r\n\r\n",
        b"GET  /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost : localhost\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n",
        b"PUT " + PUT.encode() + b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"PUT " + PUT.encode() + b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1e3\r\n\r\n",
        b"PUT "
        + PUT.encode()
        + b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"PUT " + PUT.encode() + b" HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ]
    for one in broken:
        line = await api_line(siege)
        await line.send(one)
        line.finish()
        with trio.move_on_after(ANSWER_SECONDS):
            status = status_of(await line.read())
            if status and status < 400:
                raise Fell(f"{one[:80]!r} was answered with {status}")
            line.close()
            continue
        raise Fell(f"{one[:80]!r} was neither answered nor hung up on")


async def huge_headers(siege: Siege) -> None:
    """A megabyte of headers: in one line, in 50,000, and in the path."""
    for data in (
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 1_000_000 + b"\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 50_000 + b"\r\n",
        b"GET /" + b"x" * 1_000_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ):
        status = await asked(siege, data)
        if status and status < 400:
            raise Fell(f"{len(data)} bytes of headers were answered with {status}")


async def broken_chunks(siege: Siege) -> None:
    """Chunks of no length, of all lengths, without an end; and a body that is longer than it said, or than may be."""
    head = b"PUT " + PUT.encode() + b" HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    for chunks in (
        b"xyz\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"ffffffffffffffffffff\r\nhello",
        b"5" + b"0" * 1000 + b"\r\nhello",
        b"5;" + b"x" * 200_000 + b"\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhelloXX5\r\nhello\r\n0\r\n\r\n",
        b"100000\r\n" + bytes(0x100000) + b"\r\n100000\r\n" + bytes(0x100000) + b"\r\n0\r\n\r\n",
    ):
        status = await asked(siege, head + chunks)
        if status and status < 400:
            raise Fell(f"chunks {chunks[:40]!r} were answered with {status}")
    status = await asked(siege, request(PUT, method="PUT", headers="Content-Length: 99999999\r\n"))
    if status and status < 400:
        raise Fell(f"two lengths of one body were answered with {status}")


async def slow_requests(siege: Siege) -> None:
    """Slowloris: 60 whose headers come a byte at a time, and 60 whose bodies do."""

    async def dribble(opening: bytes) -> None:
        line = await api_line(siege)
        await line.send(opening)
        while await line.send(b"x"):
            await trio.sleep(0.2)

    for _ in range(SLOW):
        siege.nursery.start_soon(dribble, b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        siege.nursery.start_soon(
            dribble, f"PUT {PUT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n".encode()
        )
    await trio.sleep(0.5)
    await siege.look()


async def half_requests(siege: Siege) -> None:
    """550 requests whose bodies stop half-way: more than are taken at one time, and none of them ever ends."""
    opening = f"PUT {PUT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n".encode()

    async def hold() -> None:
        line = await api_line(siege)
        await line.send(opening + bytes(50_000))

    for _ in range(0, HALF, 50):
        await siege.times(50, hold)
    await siege.look()


async def strangers(siege: Siege) -> None:
    """Pages of elsewhere, and names that lead here from elsewhere, are refused."""
    for data in (
        request("/v1/node", host="evil.example"),
        request("/v1/node", host="127.0.0.1.evil.example"),
        request("/v1/node", host="localhost@evil.example"),
        request("/v1/node", host="[::1"),
        request("/v1/node", headers="Origin: http://evil.example\r\n"),
        request("/v1/node", headers="Origin: null\r\n"),
        request("/v1/node", headers="Origin: http://127.0.0.1.evil.example\r\n"),
        request(PUT, method="PUT", body=b"x", headers="Origin: https://evil.example\r\n"),
        request("/v1/node", method="OPTIONS", headers="Origin: http://a.b\r\nAccess-Control-Request-Method: PUT\r\n"),
    ):
        if (status := await asked(siege, data)) != 403:
            raise Fell(f"{data[:160]!r} was answered with {status}, not 403")


async def odd_requests(siege: Siege) -> None:
    """Paths, methods and upgrades that lead nowhere: each is answered, with an error that is the caller's."""
    for path in (
        "/../../etc/passwd",
        "/%2e%2e/etc/passwd",
        "//",
        "/%00",
        "*",
        "http://evil.example/health",
        "/v1/" + "a/" * 20_000,
    ):
        await _must_be_refused(siege, request(path))
    for address in (
        "",
        "x",
        "ucxl://",
        "%00",
        "%ff%fe",
        "ucxl%3A%2F%2F" + "a" * 30_000,
        "ucxl%3A%2F%2F" + "%25" * 10_000,
    ):
        await _must_be_refused(siege, request(f"/v1/envelope?address={address}"))
        await _must_be_refused(siege, request(f"/v1/history?address={address}&limit=-1"))
    for method in ("TRACE", "CONNECT", "PATCH", "X" * 1000):
        await _must_be_refused(siege, request("/v1/node", method=method))
    for query in (
        "timeout_ms=1e99",
        "timeout_ms=nan",
        "digest=" + "f" * 63,
        "address=a&address=b",
        "&".join(f"a{n}=1" for n in range(5_000)),
    ):
        await _must_be_refused(siege, request(f"/v1/envelope?{query}"))
    await _must_be_refused(
        siege,
        request(PUT, method="PUT", body=b"\x91" * 1_000_000, headers="Content-Type: application/vnd.bzzz.envelope\r\n"),
    )
    upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    upgrade += "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    if (status := await asked(siege, request(headers=upgrade))) == 101:
        raise Fell(f"a WebSocket was opened: {status}")


async def _must_be_refused(siege: Siege, data: bytes) -> None:
    status = await asked(siege, data)
    if status and not 400 <= status < 500:
        raise Fell(f"{data[:120]!r} was answered with {status}")


async def pipelined_http(siege: Siege) -> None:
    """1,000 requests in one write, all answered in turn; and from one who reads no answer."""
    line, sullen = await api_line(siege), await api_line(siege, receive_bytes=4096)
    siege.nursery.start_soon(sullen.send, request("/v1/peers") * 20_000)
    siege.nursery.start_soon(line.send, request("/ready") * PIPELINED)
    answered = 0
    with trio.move_on_after(15):
        while answered < PIPELINED and (data := await line.read()):
            answered += data.count(b"HTTP/1.1 200")
        if answered < PIPELINED:
            raise Fell(f"the API hung up after {answered} of {PIPELINED} pipelined requests")
        return
    raise Fell(f"{answered} of {PIPELINED} pipelined requests were answered within 15 s")


async def idle_clients(siege: Siege) -> None:
    """1,000 keep-alive connections that have asked once and are held, and 200 that never asked: others still get in."""

    async def hold(is_new: bool) -> None:
        line = await api_line(siege)
        if not is_new:
            await line.send(request("/ready"))
            await line.read()

    for first in range(0, IDLE, 50):
        await siege.times(50, hold, first % 200 == 0)
    await siege.times(200, hold, True)
    await siege.look()


async def resets_on_the_api(siege: Siege) -> None:
    """RST in the middle of headers, of bodies and of answers."""
    whole = request(PUT, method="PUT", body=os.urandom(200_000))

    async def come(size: int) -> None:
        line = await api_line(siege)
        await line.send(whole[:size])
        await trio.sleep(0.01)
        line.reset()

    await siege.for_each(come, zip((*range(0, 200, 10), 1000, 65536, 150_000, len(whole))))
    for _ in range(50):
        line = await api_line(siege)
        await line.send(request("/v1/peers") * 10)
        line.reset()


ATTACKS: tuple[Attack, ...] = (
    http_garbage,
    huge_headers,
    broken_chunks,
    slow_requests,
    half_requests,
    strangers,
    odd_requests,
    pipelined_http,
    idle_clients,
    resets_on_the_api,
)
