"""Output of the commands: JSON on one line, tables, and durations for people."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from node.commands import exit_codes
from node.process.streams import OutputFailed
from protocols.printable import printable, printable_lines


class NotPrinted(click.ClickException):
    """A change was made, and the report about it cannot be printed. The message goes to standard error."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = code  # type: ignore[misc]

    def show(self, file: Any = None) -> None:
        print_note(self.message)


@contextmanager
def report(done: str, code: int = exit_codes.OUTPUT_FAILED) -> Iterator[None]:
    """Around the output of a command that changed something: if the output fails, `done` tells what was done."""
    try:
        yield
        sys.stdout.flush()
    except OutputFailed as error:
        raise NotPrinted(f"{done}, but standard output cannot be written ({error})", code) from None


def print_json(data: object) -> None:
    click.echo(json_line(data))


def json_line(data: object) -> str:
    r"""One line of JSON, its unprintable characters as `\u009b`: a terminal must not obey text of other nodes."""
    line = json.dumps(data, ensure_ascii=False)
    return line if line.isprintable() else "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in line)


def print_line(text: str) -> None:
    """One line that may have text of other nodes in it."""
    click.echo(printable(text))


def print_content(content: bytes) -> None:
    r"""Content byte for byte; on a terminal, which would obey its escape sequences, printable: `\x1b`."""
    if sys.stdout.isatty():
        text = content.decode("utf-8", "backslashreplace").replace("\r\n", "\n")
        sys.stdout.write(printable_lines(text))
    else:
        sys.stdout.buffer.write(content)
    sys.stdout.flush()


def print_note(text: str) -> None:
    """One line on standard error, so that standard output holds only the result."""
    click.echo(f"bzzz: {printable(text)}", err=True)


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """The lines of a table, printable; each column is as wide as its widest cell."""
    rows = [tuple(map(printable, row)) for row in rows]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [head, *rows]
    ]


def print_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    click.echo("\n".join(table(head, rows)))


def in_words(milliseconds: float | None) -> str:
    """A duration for people: `12 ms`, `3.4 s`, `5 min`, `2 h`, `3 d`."""
    if milliseconds is None:
        return "never"
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000)):
        if milliseconds >= 2 * size:
            return f"{milliseconds / size:.0f} {unit}"
    return f"{milliseconds / 1000:.1f} s" if milliseconds >= 1000 else f"{milliseconds:.0f} ms"
