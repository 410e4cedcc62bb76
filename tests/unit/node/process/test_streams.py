"""The standard streams of every command: output arrives as a whole or is an error, and a write is never denied."""

import contextlib
import json
import os
import resource
import signal
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from node.commands import exit_codes
from tests.unit.node.commands.running import ADDRESS, bzzz, put, served
from tests.unit.node.processes import BZZZ, WAIT_SECONDS, bzzz_process, environment
from tests.until import block_until

CONTENT = bytes(range(256)) * 3000
UNBUFFERED = pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
READS: list[tuple[str, ...]] = [
    ("get", ADDRESS),
    ("get", ADDRESS, "--json"),
    ("history", ADDRESS),
    ("peers",),
    ("health",),
    ("health", "--watch", "0.1"),
    ("id",),
    ("pending",),
    ("flags",),
    ("audit", "show"),
    ("config", "show"),
    ("completion", "bash"),
    ("sim", "list"),
    ("--help",),
    ("--version",),
]
SOME_READS = [READS[0], READS[2], ("sim", "list"), ("--help",)]
CHANGES: list[tuple[tuple[str, ...], str]] = [
    (("put", ADDRESS, __file__), f"{ADDRESS} is stored with digest "),
    (("put", ADDRESS, __file__, "--json"), f"{ADDRESS} is stored with digest "),
    (("delete", ADDRESS), f"{ADDRESS} is stored with digest "),
    (("flags", "set", "rollout_percent=25"), "the flags are changed"),
    (("pending", "retry"), "delivers them again"),
]


@pytest.fixture(scope="module")
def node() -> Iterator[str]:
    """A node with `CONTENT` at `ADDRESS`."""
    with served() as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("BZZZ_API", url)
        put(CONTENT)
        yield url


@UNBUFFERED
@pytest.mark.parametrize("command", READS, ids=" ".join)
def test_a_full_disk_is_an_error_of_every_command_in_one_line(
    node: str, command: tuple[str, ...], unbuffered: str
) -> None:
    with open("/dev/full", "wb") as full:
        ended = bzzz_process(*command, stdout=full, BZZZ_API=node, PYTHONUNBUFFERED=unbuffered)
    assert ended.returncode == exit_codes.OUTPUT_FAILED
    assert ended.stderr == b"bzzz: standard output cannot be written (No space left on device)\n"


@UNBUFFERED
@pytest.mark.parametrize(("command", "done"), CHANGES, ids=[" ".join(command[:2]) for command, _ in CHANGES])
def test_a_change_that_cannot_be_reported_is_not_said_to_be_refused(
    node: str, command: tuple[str, ...], done: str, unbuffered: str
) -> None:
    with open("/dev/full", "wb") as full:
        ended = bzzz_process(*command, stdout=full, BZZZ_API=node, PYTHONUNBUFFERED=unbuffered)
        put(CONTENT, "--api", node)
    assert ended.returncode == exit_codes.OUTPUT_FAILED
    assert ended.stderr.startswith(b"bzzz: ") and ended.stderr.count(b"\n") == 1
    assert done in ended.stderr.decode()


def test_a_write_that_is_late_and_cannot_be_reported_keeps_its_code(node: str) -> None:
    with open("/dev/full", "wb") as full:
        ended = bzzz_process("put", ADDRESS, __file__, "--replicated", stdout=full, stderr=full, BZZZ_API=node)
        put(CONTENT, "--api", node)
    assert ended.returncode == exit_codes.NOT_REPLICATED


def test_an_error_in_json_that_cannot_be_printed_keeps_its_code_and_is_said(node: str) -> None:
    with open("/dev/full", "wb") as full:
        ended = bzzz_process("receipt", "00" * 32, "--json", stdout=full, BZZZ_API=node)
    assert ended.returncode not in (0, exit_codes.OUTPUT_FAILED)
    assert ended.stderr.startswith(b"bzzz: ")


@UNBUFFERED
def test_a_file_size_limit_is_no_success(node: str, tmp_path: Path, unbuffered: str) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    with (tmp_path / "out").open("wb") as out:
        ended = bzzz_process(
            "get", ADDRESS, stdout=out, before=limit, BZZZ_API=node, PYTHONUNBUFFERED=unbuffered,
            PYTHONDONTWRITEBYTECODE="1",
        )  # fmt: skip
    assert ended.returncode == exit_codes.OUTPUT_FAILED
    assert b"File too large" in ended.stderr


@UNBUFFERED
def test_a_non_blocking_pipe_gets_everything(node: str, unbuffered: str) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    process = subprocess.Popen(
        [*BZZZ, "get", ADDRESS],
        stdout=writing, stderr=subprocess.PIPE,
        env=environment(BZZZ_API=node, PYTHONUNBUFFERED=unbuffered),
    )  # fmt: skip
    os.close(writing)
    with process, open(reading, "rb") as pipe:
        threading.Event().wait(0.3)  # a slow reader: the pipe is full long before it begins
        assert pipe.read() == CONTENT
        assert process.wait(WAIT_SECONDS) == 0


@UNBUFFERED
def test_a_reader_that_has_gone_is_an_error_without_words(node: str, unbuffered: str) -> None:
    for command in (("get", ADDRESS), ("health", "--watch", "0.1")):
        reading, writing = os.pipe()
        os.close(reading)
        ended = bzzz_process(*command, stdout=writing, BZZZ_API=node, PYTHONUNBUFFERED=unbuffered)
        os.close(writing)
        assert (ended.returncode, ended.stderr) == (exit_codes.OUTPUT_FAILED, b"")
    reading, writing = os.pipe()
    os.close(reading)
    ended = bzzz_process("put", ADDRESS, __file__, stdout=writing, BZZZ_API=node, PYTHONUNBUFFERED=unbuffered)
    os.close(writing)
    put(CONTENT, "--api", node)
    assert ended.returncode == exit_codes.OUTPUT_FAILED
    assert b"is stored with digest" in ended.stderr


@UNBUFFERED
def test_what_standard_error_does_not_take_changes_no_exit_code(node: str, unbuffered: str) -> None:
    with open("/dev/full", "wb") as full:
        for command, code in ((("id",), 0), (("gett",), 2)):
            ended = bzzz_process(*command, stderr=full, BZZZ_API=node, PYTHONUNBUFFERED=unbuffered)
            assert ended.returncode == code


def test_everything_arrives_at_a_reader_that_reads(node: str) -> None:
    assert bzzz_process("get", ADDRESS, BZZZ_API=node, PYTHONUNBUFFERED="1").stdout == CONTENT
    answer = bzzz("get", ADDRESS, "--json", "--api", node)
    assert (
        json.loads(bzzz_process("get", ADDRESS, "--json", BZZZ_API=node).stdout)["envelope"]
        == (json.loads(answer.stdout)["envelope"])
    )


# -- closed at the start ----------------------------------------------------------------------------------------------


def closed(*numbers: int) -> Callable[[], None]:
    """Closes standard streams, as a shell does for `>&-`."""

    def close() -> None:
        for number in numbers:
            os.close(number)

    return close


@pytest.mark.parametrize("command", SOME_READS, ids=" ".join)
def test_a_closed_standard_output_is_an_error_of_every_command(node: str, command: tuple[str, ...]) -> None:
    ended = bzzz_process(*command, before=closed(1), BZZZ_API=node)
    assert ended.returncode == exit_codes.OUTPUT_FAILED
    assert ended.stderr == b"bzzz: standard output cannot be written (Bad file descriptor)\n"


@pytest.mark.parametrize("command", SOME_READS, ids=" ".join)
def test_no_command_that_reads_needs_standard_input_or_standard_error(node: str, command: tuple[str, ...]) -> None:
    ended = bzzz_process(*command, before=closed(0, 2), BZZZ_API=node)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert ended.stdout


def test_an_error_keeps_its_exit_code_when_nothing_can_be_said(node: str) -> None:
    for numbers in ((2,), (1, 2), (0, 1, 2)):
        assert bzzz_process("gett", before=closed(*numbers)).returncode == exit_codes.WRONG_USE
        assert bzzz_process("id", "--api", "127.0.0.1:1", before=closed(*numbers)).returncode == exit_codes.UNREACHABLE


def test_a_write_from_a_closed_standard_input_is_refused_and_one_from_a_file_works(node: str) -> None:
    for arguments in ((ADDRESS,), (ADDRESS, "-")):
        ended = bzzz_process("put", *arguments, before=closed(0), BZZZ_API=node)
        assert ended.returncode == exit_codes.WRONG_USE
        assert b"standard input cannot be read (Bad file descriptor)" in ended.stderr
    assert bzzz_process("put", ADDRESS, __file__, before=closed(0), BZZZ_API=node).returncode == 0
    put(CONTENT, "--api", node)


def test_standard_input_that_comes_in_parts_is_stored_as_a_whole(node: str) -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with subprocess.Popen([*BZZZ, "put", ADDRESS], stdin=reading, stdout=subprocess.DEVNULL,
                          env=environment(BZZZ_API=node)) as process:  # fmt: skip
        os.close(reading)
        for start in range(0, len(CONTENT), 200_000):
            threading.Event().wait(0.3)  # the pipe is empty before each part
            os.write(writing, CONTENT[start : start + 50_000])
        os.close(writing)
        assert process.wait(WAIT_SECONDS) == 0
    assert len(bzzz_process("get", ADDRESS, BZZZ_API=node).stdout) == 200_000
    put(CONTENT, "--api", node)


@pytest.mark.parametrize("numbers", [(0,), (1,), (2,), (0, 1, 2)], ids=str)
def test_a_node_runs_with_closed_streams_and_writes_no_log_into_its_files(
    tmp_path: Path, numbers: tuple[int, ...]
) -> None:
    data = tmp_path / "data"
    arguments = ("--backend", "mock", "--data-dir", str(data), "--api", "127.0.0.1:0")
    process = subprocess.Popen([*BZZZ, "up", *arguments], env=environment(), preexec_fn=closed(*numbers))
    listening = partial(psutil.Process(process.pid).net_connections, kind="tcp4")
    try:
        block_until(listening, what="the node listens", seconds=60)  # its ready line goes nowhere
        api = f"127.0.0.1:{listening()[0].laddr.port}"
        block_until(lambda: bzzz("id", "--api", api).exit_code == 0, what="the node answers", seconds=60)
        put(CONTENT, "--api", api)
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_SECONDS) == 0
    finally:
        process.kill()
        process.wait()
    with contextlib.closing(sqlite3.connect(data / "store.db")) as store:
        assert store.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert all(json.loads(line) for line in (data / "audit.log").read_text("utf-8").splitlines())


def test_a_simulation_that_goes_on_without_its_output_says_so_at_its_end(node: str) -> None:
    with open("/dev/full", "wb") as full:
        ended = bzzz_process("sim", "live", "--seconds", "10", stdout=full)
    assert ended.returncode == exit_codes.FAILED
    assert ended.stderr == b"bzzz: standard output cannot be written (No space left on device)\n"
