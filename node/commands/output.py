"""Output of the commands: JSON on one line, tables, and durations for people."""

import json
from collections.abc import Sequence

import click


def print_json(data: object) -> None:
    click.echo(json.dumps(data, ensure_ascii=False))


def print_note(text: str) -> None:
    """One line on standard error, so that standard output holds only the result."""
    click.echo(f"bzzz: {text}", err=True)


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """The lines of a table; each column is as wide as its widest cell."""
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
