"""One connection of the HTTP server over a real socket: requests in turn, bodies in pieces, and how it ends."""

import socket
from functools import partial

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from node.api.connection import Connection
from node.api.request import Request, Response
from tests.unit.node.api.listening import PATIENT, is_status, read_all, request, running


async def read_answers(stream: trio.SocketStream, count: int) -> list[bytes]:
    """The bodies of so many answers."""
    found, bodies = b"", list[bytes]()
    while len(bodies) < count:
        head, end, rest = found.partition(b"\r\n\r\n")
        length = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0]) if end else 0
        if end and len(rest) >= length:
            assert is_status(200, head), head
            bodies.append(rest[:length])
            found = rest[length:]
            continue
        more = await stream.receive_some(65536)
        assert more, "it closed the connection before the last answer"
        found += more
    return bodies


async def test_requests_that_are_sent_together_are_answered_in_turn() -> None:
    bodies = [b"x" * size for size in (3, 0, 70_000, 1)]
    async with running() as server, await server.connect() as stream:
        sent = b"".join(request(method="PUT", headers=f"Content-Length: {len(each)}\r\n") + each for each in bodies)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, sent + request("/nap") + request())
            assert await read_answers(stream, 6) == [b"3", b"0", b"70000", b"1", b"0", b"0"]


@pytest.mark.parametrize("framing", ["Content-Length: 6", "Transfer-Encoding: chunked"])
async def test_a_body_in_small_pieces_is_read_whole(framing: str) -> None:
    body = b"abcdef" if "Length" in framing else b"1\r\na\r\n5;x=y\r\nbcdef\r\n0\r\nTrailer: 1\r\n\r\n"
    async with running() as server, await server.connect() as stream:
        for byte in request(method="PUT", headers=f"{framing}\r\n") + body + request():
            await stream.send_all(bytes([byte]))
            await wait_all_tasks_blocked()
        assert await read_answers(stream, 2) == [b"6", b"0"]


async def test_a_client_that_waits_to_be_asked_for_its_body_is_asked() -> None:
    async with running() as server, await server.connect() as stream:
        await stream.send_all(request(method="PUT", headers="Content-Length: 3\r\nExpect: 100-continue\r\n"))
        assert await stream.receive_some() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await stream.send_all(b"abc")
        assert await read_answers(stream, 1) == [b"3"]


async def test_a_client_whose_request_is_refused_is_not_asked_for_its_body() -> None:
    async with running() as server, await server.connect() as stream:
        head = request(method="PUT", headers="Content-Length: 2000000\r\nExpect: 100-continue\r\n")
        await stream.send_all(head)
        answer = await read_all(stream)
        assert is_status(413, answer)
        assert b"connection: close" in answer


async def test_a_body_that_cannot_be_read_is_refused_after_the_answers_before_it() -> None:
    async with running() as server, await server.connect() as stream:
        chunked = request(method="PUT", headers="Transfer-Encoding: chunked\r\n")
        await stream.send_all(request() + chunked + b"zz\r\n")
        first, second = (await read_all(stream)).split(b"HTTP/1.1 ")[1:]
        assert first.startswith(b"200")
        assert second.startswith(b"400")
        assert b"chunk size" in second


async def test_what_follows_a_request_that_cannot_be_read_is_never_a_request() -> None:
    async with running() as server, await server.connect() as stream:
        await stream.send_all(request() + b"nonsense\r\n\r\n" + request("/raise"))
        answers = await read_all(stream)
        assert [each[:3] for each in answers.split(b"HTTP/1.1 ")[1:]] == [b"200", b"400"]


async def test_a_client_of_http_1_0_is_answered_and_its_connection_closed() -> None:
    async with running() as server, await server.connect() as stream:
        await stream.send_all(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        answer = await read_all(stream)
        assert is_status(200, answer)
        assert b"connection: close" in answer


async def test_a_request_to_upgrade_is_answered_with_its_body_and_the_connection_goes_on() -> None:
    upgrade = "Upgrade: h2c\r\nHTTP2-Settings: x\r\nConnection: Upgrade, HTTP2-Settings\r\nContent-Length: 3\r\n"
    asked = f"PUT / HTTP/1.1\r\nHost: 127.0.0.1\r\n{upgrade}\r\nabc".encode()
    async with running() as server, await server.connect() as stream:
        await stream.send_all(asked + request())
        assert await read_answers(stream, 2) == [b"3", b"0"]


async def test_a_client_that_closes_its_side_is_still_answered() -> None:
    async with running() as server, await server.connect() as stream:
        await stream.send_all(request("/nap"))
        await stream.send_eof()
        assert is_status(200, await read_all(stream))


async def test_every_answer_has_the_time_and_its_length() -> None:
    async with running() as server:
        for path in ("/", "/raise"):
            head = (await server.get(path)).partition(b"\r\n\r\n")[0]
            assert b"\r\ndate: " in head
            assert b" GMT\r\n" in head
            assert b"\r\ncontent-length: " in head


async def test_a_client_that_sends_without_end_lets_others_be_answered() -> None:
    async with running() as server, await server.connect() as stream, trio.open_nursery() as nursery:
        nursery.start_soon(partial(flood, stream))
        for _ in range(3):
            assert await server.is_answering()
        nursery.cancel_scope.cancel()


async def flood(stream: trio.SocketStream) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_all, stream)
        while True:
            await stream.send_all(request() * 500)


class Reset(socket.socket):
    """A socket whose client resets the connection as soon as its request was read."""

    def recv(self, size: int, flags: int = 0) -> bytes:
        if flags & socket.MSG_PEEK:
            raise ConnectionResetError
        return super().recv(size, flags)


async def test_a_request_of_a_client_that_has_reset_the_connection_is_not_worked_on() -> None:
    worked_on: list[str] = []

    async def app(request: Request) -> Response:
        worked_on.append(request.path)
        return Response(b"")

    here, there = socket.socketpair()
    client = Reset(fileno=here.detach())
    client.setblocking(False)
    with there:
        there.sendall(request("/v1/peers"))
        await Connection(app, client, PATIENT, lambda: 0, {}, address="").run()
    assert worked_on == []
