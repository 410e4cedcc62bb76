"""What the commands print."""

import json
import os
import pty
import subprocess

import pytest

from node.commands.output import in_words, json_line, table
from protocols import errors
from tests.unit.node.commands.running import ADDRESS, bzzz, put, stand_in
from tests.unit.node.processes import BZZZ, environment

HOSTILE = "\x1b[2J\x1b]0;owned\x07 a\r\x9b31m \u202eevil\x7f"


@pytest.mark.parametrize(
    ("milliseconds", "words"),
    [
        (None, "never"),
        (0, "0 ms"),
        (999, "999 ms"),
        (1500, "1.5 s"),
        (120_000, "2 min"),
        (7_200_000, "2 h"),
        (2.6e8, "3 d"),
    ],
)
def test_durations_are_said_as_a_person_says_them(milliseconds: float | None, words: str) -> None:
    assert in_words(milliseconds) == words


def on_a_terminal(*arguments: str, api: str) -> str:
    """What a command writes to its terminal, both outputs together."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [*BZZZ, *arguments], stdin=slave, stdout=slave, stderr=slave, env=environment(BZZZ_API=api)
    )
    os.close(slave)
    written = b""
    try:
        while part := os.read(master, 65536):
            written += part
    except OSError:  # the other end is closed
        pass
    os.close(master)
    assert process.wait(30) == 0, written
    return written.decode().replace("\r\n", "\n")


def test_content_is_printable_on_a_terminal_and_raw_in_a_pipe(api: str) -> None:
    content = f"{HOSTILE}\n\tgrüße\r\n".encode() + b"\xff"
    put(content)
    assert bzzz("get", ADDRESS).stdout_bytes == content
    shown = on_a_terminal("get", ADDRESS, api=api)
    assert shown == ("\\x1b[2J\\x1b]0;owned\\x07 a\\r\\x9b31m \\u202eevil\\x7f\n\tgrüße\n\\xff")
    for option in ("--json", "--envelope"):
        assert on_a_terminal("get", ADDRESS, option, api=api).replace("\n", "").replace("\t", "").isprintable()


def test_json_is_printable_and_means_the_same() -> None:
    data = {"name": HOSTILE, "more": ["grüße", "\U0001f600", "\ud800", "\U000e0001"]}
    assert json_line(data).isprintable()
    assert json.loads(json_line(data)) == data
    assert "grüße" in json_line(data)


def test_text_of_other_nodes_is_printable_in_tables_messages_and_notes() -> None:
    lines = table(("NAME", "X"), [(HOSTILE, "1")])
    assert all(line.isprintable() for line in lines)
    assert lines[0].index("X") == lines[1].rindex("1"), "columns are as wide as what is shown"
    error = {"code": errors.NotFound.code, "message": HOSTILE, "details": {}, "retryable": False}
    with stand_in(404, {"error": error}) as where:
        for options in ((), ("--json",)):
            result = bzzz("get", ADDRESS, "--api", where, *options)
            assert result.output.removesuffix("\n").isprintable()
    with stand_in(200, b"x", {"UCXL-Degraded": "true", "UCXL-Reason": "\x1b[2J"}) as where:
        assert bzzz("get", ADDRESS, "--api", where).stderr.removesuffix("\n").isprintable()
    receipt = {"address": ADDRESS, "digest": "d", "log": "l", "sequence": 1, "replicated": True, "quorum": 1}
    with stand_in(200, {"response": {"data": receipt, "message": HOSTILE}}) as where:
        assert bzzz("receipt", "00" * 32, "--api", where).stdout.replace("\n", "").isprintable()
    report = {"status": "degraded", "reasons": [HOSTILE], "components": []}
    with stand_in(200, {"response": {"data": report, "message": ""}}) as where:
        assert bzzz("health", "--api", where).stdout.replace("\n", "").isprintable()
