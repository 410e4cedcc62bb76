"""The HTTP server over real sockets on loopback: one client cannot harm another client or the node."""

import json
import socket
import struct
from contextlib import suppress
from functools import partial

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from node.api.limits import RequestLimits, ServerLimits
from tests.unit.node.api.listening import BIG, PATIENT, QUICK, Server, is_status, read_all, request, running
from tests.until import until


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\xff\xfe\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",  # no Host
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS client
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"PUT / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"GET /" + b"a" * 200_000,
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 50_000,
        b"GET /%ff%fe?a=%ff HTTP/1.1\r\nHost: \xff\xfe\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\nConnection: Upgrade\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\nHost: [\r\nOrigin: http://[\r\n\r\n",
    ],
    ids=range(16),
)
async def test_garbage_ends_only_its_own_connection(garbage: bytes) -> None:
    async with running(QUICK) as server:
        async with await server.connect() as stream:
            with trio.move_on_after(30) as in_time:
                try:
                    await stream.send_all(garbage)
                    await read_all(stream)
                except trio.BrokenResourceError:
                    pass
            assert not in_time.cancelled_caught, "the connection is still open"
        assert is_status(200, await server.get())


async def test_what_cannot_be_read_is_refused_in_the_ucxl_shape() -> None:
    async with running() as server, await server.connect() as stream:
        await stream.send_all(b"nonsense\r\n\r\n")
        head, _, body = (await read_all(stream)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400")
        assert json.loads(body)["error"]["code"] == "UCXL-400-INVALID_PAYLOAD"


async def test_headers_that_never_end_are_answered_and_cut_off() -> None:
    async with running(QUICK) as server, await server.connect() as stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: ")
        head, _, body = (await read_all(stream)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408")
        assert json.loads(body)["error"]["retryable"] is True


async def test_a_connection_that_says_nothing_is_closed() -> None:
    async with running(QUICK) as server, await server.connect() as stream:
        assert await read_all(stream) == b""


async def test_a_body_that_never_ends_is_answered_and_cut_off() -> None:
    async with running(QUICK, RequestLimits(body_seconds_max=0.2)) as server, await server.connect() as stream:
        await stream.send_all(request(method="PUT", headers="Content-Length: 10\r\n") + b"abc")
        head, _, body = (await read_all(stream)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408")
        assert json.loads(body)["error"]["details"]["received_bytes"] == 3


async def test_a_client_that_never_reads_is_cut_off_and_does_not_delay_the_end() -> None:
    async with (
        running(ServerLimits(write_seconds_max=60, grace_seconds=0.2)) as server,
        await server.connect() as stream,
    ):
        await stream.send_all(request("/big"))
        await stream.receive_some(1)  # the answer has begun
        with trio.fail_after(30):
            await server.stop()


async def test_a_client_that_reads_too_slowly_loses_its_connection() -> None:
    async with running(QUICK) as server, await server.connect() as stream:
        await stream.send_all(request("/big"))
        await trio.sleep(2 * QUICK.write_seconds_max)
        got = 0
        with pytest.raises(trio.BrokenResourceError):
            while data := await stream.receive_some(65536):
                got += len(data)
            raise trio.BrokenResourceError  # closed politely: the same to the client
        assert got < BIG


@pytest.mark.parametrize("announced", [True, False])
async def test_too_long_a_body_is_refused_early_and_the_answer_arrives(announced: bool) -> None:
    """Eight times what is allowed: the client is still sending when the answer comes, and gets to read it."""
    body = b"y" * 8_000_000
    framing = f"Content-Length: {len(body)}\r\n" if announced else "Transfer-Encoding: chunked\r\n"
    framed = body if announced else b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    async with running() as server, await server.connect() as stream:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_send, stream, request(method="PUT", headers=framing) + framed)
            head, _, body = (await read_all(stream)).partition(b"\r\n\r\n")
            nursery.cancel_scope.cancel()
        assert head.startswith(b"HTTP/1.1 413")
        assert json.loads(body)["error"]["code"] == "UCXL-413-TOO_LARGE"


async def _send(stream: trio.SocketStream, data: bytes) -> None:
    with suppress(trio.BrokenResourceError):
        await stream.send_all(data)


async def test_a_defect_in_one_request_is_a_500_and_the_next_one_works() -> None:
    async with running() as server:
        found = await server.get("/raise")
        assert is_status(500, found)
        assert b"UCXL-500-INTERNAL" in found
        assert b"a defect" not in found
        assert is_status(200, await server.get())


async def test_requests_under_way_end_well_when_the_node_stops() -> None:
    patient = ServerLimits(grace_seconds=30)
    async with running(patient) as server, await server.connect() as stream, await server.connect() as idle:
        await stream.send_all(request("/nap"))
        await idle.send_all(request())
        found = b""
        while not found.endswith(b"\r\n\r\n0"):
            found += await idle.receive_some()
        async with trio.open_nursery() as nursery:
            await trio.testing.wait_all_tasks_blocked(0.02)
            nursery.start_soon(server.stop)
            assert is_status(200, await read_all(stream))
            assert await read_all(idle) == b""


async def test_a_request_that_would_wait_for_ever_does_not_delay_the_end() -> None:
    async with running(QUICK) as server, await server.connect() as stream:
        await stream.send_all(request("/sleep"))
        await trio.testing.wait_all_tasks_blocked(0.02)
        with trio.fail_after(30):
            await server.stop()


async def test_too_many_busy_connections_refuse_a_new_one() -> None:
    async with running(ServerLimits(connections_max=2)) as server:
        async with await server.connect() as one, await server.connect() as two:
            for stream in (one, two):
                await stream.send_all(request("/sleep"))
            await wait_all_tasks_blocked(0.05)
            found = await server.get()
            assert is_status(503, found)
            assert b"UCXL-503-UNAVAILABLE" in found
        await until(server.is_answering)


async def test_connections_beyond_every_limit_wait_to_be_accepted_and_are_answered_then() -> None:
    async with running(ServerLimits(connections_max=2, surplus_max=1)) as server:
        async with await server.connect() as one, await server.connect() as two:
            for stream in (one, two):
                await stream.send_all(request("/sleep"))
            await wait_all_tasks_blocked(0.05)
            waiting = [await server.connect() for _ in range(4)]
            for stream in waiting:  # each has the one place until its client has read the answer
                await wait_all_tasks_blocked(0.05)
                assert is_status(503, await read_all(stream))
                await stream.aclose()
        await until(server.is_answering)


async def test_too_many_requests_at_once_get_429() -> None:
    async with running(QUICK, RequestLimits(requests_max=1)) as server, await server.connect() as stream:
        await stream.send_all(request("/sleep"))
        await trio.testing.wait_all_tasks_blocked(0.02)
        found = await server.get()
        assert is_status(429, found)
        assert b"retry-after: 1" in found


async def test_head_is_a_get_without_its_body() -> None:
    async with running() as server, await server.connect() as stream:
        await stream.send_all(request(method="HEAD", close=True))
        head, _, body = (await read_all(stream)).partition(b"\r\n\r\n")
        assert b"content-length: 1" in head
        assert body == b""


async def test_clients_that_vanish_leave_nothing_behind() -> None:
    async with running() as server:
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(partial(_vanish, server, number))
        assert is_status(200, await server.get())


async def _vanish(server: Server, number: int) -> None:
    """Leave with a reset, at one of several bad moments."""
    stream = await server.connect()
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    moments = [
        b"",
        b"GET / HT",
        request("/nap"),
        request("/big"),
        request(method="PUT", headers="Content-Length: 9\r\n"),
    ]
    await stream.send_all(moments[number % len(moments)])
    await stream.aclose()


async def test_idle_connections_give_way_to_a_new_one() -> None:
    async with running(ServerLimits(connections_max=4)) as server:
        slow = [await server.connect() for _ in range(2)]
        for stream in slow:
            await stream.send_all(b"PUT / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\n\r\nhalf")
        held = []
        for _ in range(8):
            held.append(await server.connect())
            await held[-1].send_all(request())
            assert is_status(200, await held[-1].receive_some())
        for stream in (*slow, *held[:4]):
            with suppress(trio.BrokenResourceError):
                await read_all(stream)
        await held[-1].send_all(request())
        assert is_status(200, await held[-1].receive_some()), "the one that has waited least is still open"
        for stream in (*slow, *held):
            await stream.aclose()


async def test_a_crowd_of_new_connections_closes_none_before_it_is_used() -> None:
    async with running(ServerLimits(connections_max=2)) as server:
        crowd = [await server.connect() for _ in range(8)]
        for stream in crowd:
            await stream.send_all(request())
        for stream in crowd:
            assert is_status(200, await stream.receive_some(65536))
            await stream.aclose()


async def test_a_client_that_leaves_in_the_middle_of_a_body_frees_its_place_at_once() -> None:
    async with running(PATIENT, RequestLimits(requests_max=1)) as server:
        async with await server.connect() as stream:
            await stream.send_all(b"PUT / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\n\r\nhalf")
            await wait_all_tasks_blocked(0.05)
            assert is_status(429, await server.get(method="PUT"))
        await until(server.is_writing)


async def test_writes_take_no_place_of_a_read_and_probes_are_answered_however_much_there_is_to_do() -> None:
    async with running(PATIENT, RequestLimits(requests_max=1)) as server, await server.connect() as stream:
        await stream.send_all(b"PUT / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\n\r\nhalf")
        await wait_all_tasks_blocked(0.05)
        assert is_status(429, await server.get(method="PUT"))
        async with await server.connect() as reading:
            await reading.send_all(request("/sleep"))
            await wait_all_tasks_blocked(0.05)
            assert is_status(429, await server.get())
            assert is_status(200, await server.get("/health"))


async def test_a_client_that_leaves_during_its_answer_leaves_nothing_behind() -> None:
    """An answer that ended after its client was gone began to wait for the next request, for a minute."""
    async with running(PATIENT) as server:
        for number in range(20):
            stream = await server.connect()
            await until(lambda: any("serve_connection" in name for name in task_names()))
            await stream.send_all(request("/nap") * 2)
            await trio.sleep(0.002 * number)
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await stream.aclose()
        await until(lambda: not any("serve_connection" in name for name in task_names()))


def task_names() -> list[str]:
    found: list[str] = []
    tasks = [trio.lowlevel.current_root_task()]
    while tasks and (task := tasks.pop()) is not None:
        found.append(task.name)
        tasks += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return found
