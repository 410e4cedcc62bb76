"""Logs: a record of others' text is one line that controls no terminal."""

import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from node.logs import formatter

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
