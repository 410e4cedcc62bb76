"""The standard streams of every command: output arrives as a whole or is an error, and a write is never denied."""

import json
import os
import resource
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.commands import exit_codes
from tests.unit.node.commands.running import ADDRESS, bzzz, put, served
from tests.unit.node.processes import BZZZ, REPOSITORY, bzzz_process, environment

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
    ("config", "show"),
    ("completion", "bash"),
    ("sim", "list"),
    ("--help",),
    ("--version",),
]
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
        stdout=writing, stderr=subprocess.PIPE, cwd=REPOSITORY,
        env=environment(BZZZ_API=node, PYTHONUNBUFFERED=unbuffered),
    )  # fmt: skip
    os.close(writing)
    with process, open(reading, "rb") as pipe:
        threading.Event().wait(0.3)  # a slow reader: the pipe is full long before it begins
        assert pipe.read() == CONTENT
        assert process.wait(10) == 0


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
