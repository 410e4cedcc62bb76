"""Signals of real processes: the end of a terminal, and Ctrl-C for what was started in the background."""

import json
import os
import pty
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.live.node_processes import call
from tests.unit.node.processes import BZZZ, environment
from tests.until import block_until

ENDS_IN_SECONDS = 30.0


@contextmanager
def node(
    tmp_path: Path, *, has_terminal: bool, before: Callable[[], object] = os.getpid
) -> Iterator[tuple[subprocess.Popen[bytes], str, int]]:
    """A node in a session of its own, its API, and the other end of its terminal, which the caller closes."""
    master, slave = pty.openpty()

    def take_terminal() -> None:
        os.setsid()
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may run under `nohup`, whose children ignore it
        before()
        if has_terminal:
            os.close(os.open(os.ttyname(slave), os.O_RDWR))  # the first terminal that a session opens controls it

    process = subprocess.Popen(
        [*BZZZ, "up", "--backend", "mock", "--data-dir", str(tmp_path / "data"), "--api", "127.0.0.1:0",
         "--json"],
        stdin=slave if has_terminal else subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=slave if has_terminal else subprocess.DEVNULL,
        env=environment(), preexec_fn=take_terminal,
    )  # fmt: skip
    os.close(slave)
    try:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())["api"], master
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_a_node_ends_when_its_terminal_closes(tmp_path: Path) -> None:
    with node(tmp_path, has_terminal=True) as (process, api, terminal):
        assert call(api, "/ready")[0] == 200
        os.close(terminal)
        assert process.wait(ENDS_IN_SECONDS) == 0


def ignore_hangups() -> None:
    """What `nohup` does."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


@pytest.mark.parametrize(("has_terminal", "before"), [(False, os.getpid), (True, ignore_hangups)])
def test_a_node_without_a_terminal_or_under_nohup_goes_on(
    tmp_path: Path, has_terminal: bool, before: Callable[[], object]
) -> None:
    with node(tmp_path, has_terminal=has_terminal, before=before) as (process, api, terminal):
        os.close(terminal)
        process.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        assert call(api, "/ready")[0] == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(ENDS_IN_SECONDS) == 0


def ignore_interrupts() -> None:
    """What a shell without job control does for a command that it starts with `&`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def test_many_runs_in_the_background_end_when_they_are_interrupted() -> None:
    process = subprocess.Popen(
        [*BZZZ, "sim", "run", "flapping-link", "--runs", "100000", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(),
        preexec_fn=ignore_interrupts,
    )  # fmt: skip
    with process:
        try:
            assert process.stdout is not None and process.stderr is not None
            assert process.stdout.readline()
            process.send_signal(signal.SIGINT)
            process.stdout.read()
            assert (process.wait(30), process.stderr.read().strip()) == (130, b"")
        finally:
            process.kill()


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_node_whose_output_is_not_read_runs_and_ends_well(tmp_path: Path, unbuffered: str) -> None:
    reading, gone = os.pipe()
    os.close(reading)
    for number, out in enumerate((gone, os.open("/dev/full", os.O_WRONLY))):
        with (tmp_path / f"log{number}").open("wb") as log:
            process = subprocess.Popen(
                [*BZZZ, "up", "--backend", "mock", "--data-dir", str(tmp_path / "data"), "--api", "127.0.0.1:0"],
                stdout=out, stderr=log, env=environment(PYTHONUNBUFFERED=unbuffered),
            )  # fmt: skip
        os.close(out)
        try:
            block_until(lambda: b"ready" in (tmp_path / f"log{number}").read_bytes(), what="it is ready", seconds=60)  # noqa: B023
            process.send_signal(signal.SIGTERM)
            assert process.wait(ENDS_IN_SECONDS) == 0
        finally:
            process.kill()
            process.wait()


def test_a_data_directory_may_have_any_name_and_one_that_is_too_long_is_refused(tmp_path: Path) -> None:
    start = [*BZZZ, "up", "--backend", "mock", "--api", "127.0.0.1:0", "--json", "--log-format", "json", "--data-dir"]
    odd = os.path.join(os.fsencode(tmp_path), b"a?b#c%41\n\xff")
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen([*start, odd], stdout=subprocess.PIPE, stderr=log, env=environment()) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, (tmp_path / "log").read_text("utf-8")
            api = json.loads(line)["api"]
            os.unlink(os.path.join(odd, b"store.db"))  # health names the file
            block_until(lambda: call(api, "/health")[0] == 503, what="it is noticed")
            process.send_signal(signal.SIGTERM)
            assert process.wait(ENDS_IN_SECONDS) == 0
        finally:
            process.kill()
    assert b"Traceback" not in (tmp_path / "log").read_bytes()
    long = tmp_path / ("a" * 250) / ("b" * 250)
    refused = subprocess.run([*start, long], capture_output=True, env=environment(), check=False)
    assert refused.returncode == 2
    assert refused.stderr.count(b"\n") == 1 and b"SQLite takes at most" in refused.stderr
    assert not long.parent.exists()
