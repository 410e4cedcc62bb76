"""Logs: a record of others' text is one line that controls no terminal."""

import io
import json
import logging
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from node import terminal
from node.logs import formatter
from tests.unit.node.processes import environment

HOSTILE = "red\x1b[31m\nbzzz is hacked\r\u202e\x9b2J"
SHOWN = r"red\x1b[31m\nbzzz is hacked\r\u202e\x9b2J"


def lines(form: str, message: str, *arguments: object, **extra: Any) -> list[str]:
    """The lines of one record, as a log of this form has them."""
    record = logging.getLogger("bzzz.test").makeRecord(
        "bzzz.test", logging.WARNING, __file__, 1, message, arguments, extra.pop("exc_info", None), extra=extra
    )
    return formatter(form).format(record).split("\n")


def test_text_of_others_in_a_record_is_shown_as_escapes() -> None:
    (line,) = lines("text", "%s is here", HOSTILE, peer="\x1b[0m", names=(HOSTILE,))
    assert line.isprintable()
    assert f"{SHOWN} is here" in line
    assert r"peer=\x1b[0m" in line


def test_a_record_in_json_is_one_line_with_the_text_as_it_was() -> None:
    (line,) = lines("json", "%s is here", HOSTILE)
    assert line.isprintable()
    assert json.loads(line)["event"] == f"{HOSTILE} is here"


@pytest.fixture
def error() -> Iterator[Any]:
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        yield sys.exc_info()


def test_a_traceback_keeps_its_lines_and_nothing_else(error: Any) -> None:
    first, *traceback = lines("text", "a call failed", exc_info=error)
    assert "a call failed" in first
    assert "Traceback (most recent call last):" in traceback[0]
    assert any(line.startswith(r"ValueError: red\x1b[31m") for line in traceback)
    assert all(line.replace("\t", " ").isprintable() for line in traceback)


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("variables", "control", "colors"),
    [
        ({"TERM": "xterm"}, True, True),
        ({"TERM": "xterm", "NO_COLOR": ""}, True, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, True, False),
        ({"TERM": "xterm", "NO_COLOR": "0"}, True, False),
        ({"TERM": "dumb"}, False, False),
        ({"TERM": ""}, False, False),
        ({}, False, False),
    ],
)
def test_colors_and_control_sequences_are_for_terminals_that_take_them(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], control: bool, colors: bool
) -> None:
    for name in ("TERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert (terminal.has_control(_Terminal()), terminal.has_colors(_Terminal())) == (control, colors)
    assert not terminal.has_control(io.StringIO())


@pytest.mark.parametrize(
    ("variables", "has_colors"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_the_log_of_a_node_on_a_terminal_has_colors_unless_they_are_not_wanted(
    variables: dict[str, str], has_colors: bool
) -> None:
    script = "from node import logs; import structlog; logs.configure('text', 'info'); structlog.get_logger().info('x')"
    master, slave = pty.openpty()
    kept = environment(TERM="xterm")
    kept.pop("NO_COLOR", None)
    subprocess.run([sys.executable, "-c", script], stderr=slave, env={**kept, **variables}, timeout=60, check=True)
    written = os.read(master, 65536)
    os.close(slave)
    os.close(master)
    assert b"x" in written
    assert (b"\x1b" in written) == has_colors
