"""Attacks on the HTTP API: slow, huge, malformed, endless and cross-origin requests, and connections that are held."""

import os
from collections import defaultdict

import trio

from attacks.attack_run import Attack, AttackRun
from attacks.connections import AttackConnection, TargetFailed
from attacks.http_client import request, status_of
from attacks.on_tcp import GARBAGE

SLOW = 60
HALF = 700
IDLE = 1_000
PIPELINED = 1_000
PUT = "/v1/envelope?address=ucxl%3A%2F%2Fa%3Ab%40c%3Ad%2F%2A%5E%2Fattacked"
ANSWER_SECONDS = 5.0


async def api_connection(run: AttackRun, *, receive_bytes: int = 0) -> AttackConnection:
    assert run.target.api is not None, "the catalogue offers these attacks only with an API"
    return await run.connection(run.target.api, receive_bytes=receive_bytes)


async def status_for(run: AttackRun, data: bytes) -> int:
    """The status of the answer to these bytes; 0 when the API hangs up. Raises `TargetFailed` when it does neither."""
    connection = await api_connection(run)
    await connection.send(data)
    connection.finish()
    with trio.move_on_after(ANSWER_SECONDS):
        status = status_of(await connection.read())
        connection.close()
        return status
    raise TargetFailed(
        f"{data[:60]!r}...{data[60:][-60:]!r} got neither an answer nor a hang-up within {ANSWER_SECONDS:g} s"
    )


async def http_garbage(run: AttackRun) -> None:
    """Bytes that are no HTTP, and malformed HTTP: none of it is accepted as a request."""
    malformed = [
        *(garbage for garbage in GARBAGE if b"HTTP/1.1" not in garbage),
        b"\r\n" * 1000 + b"\0\r\n\r\n",
        b"GET /health\r\n\r\n",
        b"GET /health HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: example.org\r\n\r\n",
        b"GET\t/health HTTP/1.1\r\nHost: localhost\r\n\r\n",
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
    for each in malformed:
        connection = await api_connection(run)
        await connection.send(each)
        connection.finish()
        with trio.move_on_after(ANSWER_SECONDS):
            status = status_of(await connection.read())
            if status and status < 400:
                raise TargetFailed(f"{each[:80]!r} was answered with {status}")
            connection.close()
            continue
        raise TargetFailed(f"{each[:80]!r} got neither an answer nor a hang-up")


async def huge_headers(run: AttackRun) -> None:
    """A megabyte of headers: in one line, in 50,000 lines, and in the path."""
    for data in (
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 1_000_000 + b"\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 50_000 + b"\r\n",
        b"GET /" + b"x" * 1_000_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ):
        status = await status_for(run, data)
        if status and status < 400:
            raise TargetFailed(f"{len(data)} bytes of headers were answered with {status}")


async def broken_chunks(run: AttackRun) -> None:
    """Chunks with malformed or huge lengths or without an end, and bodies longer than announced or allowed."""
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
        status = await status_for(run, head + chunks)
        if status and status < 400:
            raise TargetFailed(f"chunks {chunks[:40]!r} were answered with {status}")
    status = await status_for(run, request(PUT, method="PUT", headers="Content-Length: 99999999\r\n"))
    if status and status < 400:
        raise TargetFailed(f"two lengths of one body were answered with {status}")


async def slow_requests(run: AttackRun) -> None:
    """Slowloris: 60 requests whose headers come byte by byte, and 60 whose bodies do."""

    async def dribble(opening: bytes) -> None:
        connection = await api_connection(run)
        await connection.send(opening)
        while await connection.send(b"x"):
            await trio.sleep(0.2)

    for _ in range(SLOW):
        run.nursery.start_soon(dribble, b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        run.nursery.start_soon(
            dribble, f"PUT {PUT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n".encode()
        )
    await trio.sleep(0.5)
    await run.check()


async def half_requests(run: AttackRun) -> None:
    """700 requests whose bodies stop half-way: more than the API accepts at one time, and none of them ends."""
    opening = f"PUT {PUT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n".encode()

    async def hold() -> None:
        connection = await api_connection(run)
        await connection.send(opening + bytes(50_000))

    for _ in range(0, HALF, 50):
        await run.times(50, hold)
    await run.check()


async def strangers(run: AttackRun) -> None:
    """Requests from pages of other origins, and with other host names, are refused."""
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
        if (status := await status_for(run, data)) != 403:
            raise TargetFailed(f"{data[:160]!r} was answered with {status}, not 403")


async def odd_requests(run: AttackRun) -> None:
    """Paths, methods, queries and upgrades that do not exist: each is answered with a client error."""
    for path in (
        "/../../etc/passwd",
        "/%2e%2e/etc/passwd",
        "//",
        "/%00",
        "*",
        "http://evil.example/health",
        "/v1/" + "a/" * 20_000,
    ):
        await _must_be_refused(run, request(path))
    for address in (
        "",
        "x",
        "ucxl://",
        "%00",
        "%ff%fe",
        "ucxl%3A%2F%2F" + "a" * 30_000,
        "ucxl%3A%2F%2F" + "%25" * 10_000,
    ):
        await _must_be_refused(run, request(f"/v1/envelope?address={address}"))
        await _must_be_refused(run, request(f"/v1/history?address={address}&limit=-1"))
    for method in ("TRACE", "CONNECT", "PATCH", "X" * 1000):
        await _must_be_refused(run, request("/v1/node", method=method))
    for query in (
        "timeout_ms=1e99",
        "timeout_ms=nan",
        "digest=" + "f" * 63,
        "address=a&address=b",
        "&".join(f"a{n}=1" for n in range(5_000)),
    ):
        await _must_be_refused(run, request(f"/v1/envelope?{query}"))
    await _must_be_refused(
        run,
        request(PUT, method="PUT", body=b"\x91" * 1_000_000, headers="Content-Type: application/vnd.bzzz.envelope\r\n"),
    )
    upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    upgrade += "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    if (status := await status_for(run, request(headers=upgrade))) == 101:
        raise TargetFailed(f"a WebSocket was opened: {status}")


async def _must_be_refused(run: AttackRun, data: bytes) -> None:
    status = await status_for(run, data)
    if status and not 400 <= status < 500:
        raise TargetFailed(f"{data[:120]!r} was answered with {status}")


async def pipelined_http(run: AttackRun) -> None:
    """1,000 requests in one write, all answered in turn; and 20,000 from a client that reads no answer."""
    connection, mute = await api_connection(run), await api_connection(run, receive_bytes=4096)
    run.nursery.start_soon(mute.send, request("/v1/peers") * 20_000)
    run.nursery.start_soon(connection.send, request("/ready") * PIPELINED)
    answered = 0
    with trio.move_on_after(15):
        while answered < PIPELINED and (data := await connection.read()):
            answered += data.count(b"HTTP/1.1 200")
        if answered < PIPELINED:
            raise TargetFailed(f"the API hung up after {answered} of {PIPELINED} pipelined requests")
        return
    raise TargetFailed(f"{answered} of {PIPELINED} pipelined requests were answered within 15 s")


async def idle_clients(run: AttackRun) -> None:
    """1,000 keep-alive connections after a request, and 200 without one, are held: other clients can still connect."""

    async def hold(is_new: bool) -> None:
        connection = await api_connection(run)
        if not is_new:
            await connection.send(request("/ready"))
            await connection.read()

    for first in range(0, IDLE, 50):
        await run.times(50, hold, first % 200 == 0)
    await run.times(200, hold, True)
    await run.check()


async def one_idempotency_key(run: AttackRun) -> None:
    """100 writes at once to ten addresses with one `Idempotency-Key`: only one address is written."""
    name = os.urandom(8).hex()
    statuses: defaultdict[str, list[int]] = defaultdict(list)

    async def put(address: str) -> None:
        path = f"/v1/envelope?address=ucxl%3A%2F%2Fa%3Ab%40c%3Ad%2F%2A%5E%2F{address}"
        data = request(path, method="PUT", headers=f"Idempotency-Key: {name}\r\n", body=address.encode())
        statuses[address].append(await status_for(run, data))

    await run.for_each(put, [(f"{name}-{number % 10}",) for number in range(100)])
    done = [address for address, each in statuses.items() if any(200 <= status < 300 for status in each)]
    others = {status for address, each in statuses.items() if address not in done for status in each}
    if len(done) != 1 or not others <= {409, 503}:  # 503: the earlier ones take longer than this one may wait
        raise TargetFailed(f"one Idempotency-Key for ten addresses was answered with {dict(statuses)}")


async def resets_on_the_api(run: AttackRun) -> None:
    """RST in the middle of headers, bodies and answers."""
    whole = request(PUT, method="PUT", body=os.urandom(200_000))

    async def send_and_reset(size: int) -> None:
        connection = await api_connection(run)
        await connection.send(whole[:size])
        await trio.sleep(0.01)
        connection.reset()

    await run.for_each(send_and_reset, zip((*range(0, 200, 10), 1000, 65536, 150_000, len(whole))))
    for _ in range(50):
        connection = await api_connection(run)
        await connection.send(request("/v1/peers") * 10)
        connection.reset()


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
    one_idempotency_key,
    resets_on_the_api,
)
