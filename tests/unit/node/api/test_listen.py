"""The listening socket of the API: errors at its start, and connections that wait to be accepted."""

import errno
import os
import resource
import socket
from contextlib import ExitStack, closing
from typing import NoReturn

import pytest
import trio
from structlog.testing import capture_logs

from node.api.listen import AT_ONCE, Acceptor, BindFailed, bind, url_of


async def test_a_port_that_is_taken_is_an_error_that_says_what_to_do() -> None:
    with bind("127.0.0.1:0") as first:
        port = first.getsockname()[1]
        with pytest.raises(BindFailed, match=f"127.0.0.1:{port}.*another process.*--api"):
            bind(f"127.0.0.1:{port}")


def test_an_address_of_another_machine_is_an_error() -> None:
    with pytest.raises(BindFailed, match="does not have that address"):
        bind("192.0.2.1:8080")


def test_ipv6_and_names_can_be_listened_on() -> None:
    with bind("localhost:0") as named:
        assert url_of(named).startswith("http://127.0.0.1:")
    if socket.has_ipv6:
        with bind("[::1]:0") as listening:
            assert url_of(listening).startswith("http://[::1]:")


async def test_many_connections_at_once_wait_and_all_are_accepted() -> None:
    with closing(bind("127.0.0.1:0")) as listening, ExitStack() as stack:
        for _ in range(600):  # no task accepts them meanwhile, so the system holds them
            stack.enter_context(closing(socket.create_connection(listening.getsockname(), timeout=5)))
        acceptor = Acceptor(listening)
        taken = [await acceptor.accept() for _ in range(600 // AT_ONCE)]
        assert [len(some) for some in taken] == [AT_ONCE] * len(taken)
        for stream, _ in (each for some in taken for each in some):
            stream.close()


async def test_without_descriptors_left_connections_wait_until_there_are_some() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with closing(bind("127.0.0.1:0")) as listening, socket.create_connection(listening.getsockname()):
        acceptor = Acceptor(listening)
        spare = os.dup(0)  # the lowest that is free
        os.close(spare)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (spare, hard))
            with trio.move_on_after(0.3), capture_logs() as lines:
                await acceptor.accept()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert ["this process has no file descriptors left" in line["event"] for line in lines] == [True], (
            "one line, though it tried often"
        )
        ((stream, address),) = await acceptor.accept()
        stream.close()
        assert address == "127.0.0.1"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EMFILE, "this process has no file descriptors left; raise its limit (ulimit -n)"),
        (errno.ENFILE, "this machine has no file descriptors left; raise its limit (sysctl fs.file-max)"),
        (errno.ENOBUFS, "this machine has no memory left for sockets"),
        (errno.ENOMEM, "this machine has no memory left for sockets"),
    ],
)
async def test_the_log_names_what_is_short_when_no_connection_can_be_accepted(number: int, words: str) -> None:
    class Short(socket.socket):
        def accept(self) -> NoReturn:
            raise OSError(number, os.strerror(number))

    with Short() as listening, closing(socket.socket()) as waiting:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        waiting.connect(listening.getsockname())
        with trio.move_on_after(0.05), capture_logs() as lines:
            await Acceptor(listening).accept()
        assert [words in line["event"] for line in lines] == [True]
