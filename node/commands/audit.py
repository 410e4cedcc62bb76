"""`bzzz audit show` and `verify`: what was done to a node, and whether the record of it is what the node wrote.

The lines are checked here, not by the node: whoever could change its log could change what it says of it.
"""

import json
from collections.abc import Iterator
from typing import Any

import click

from node.commands.client import ApiClient, Failure, print_json, print_table, talks_to_node

_file = click.option("--file", metavar="FILE", help="Read this log, audit.log in a data directory, and ask no node.")
_PAGE = 1000


@click.group("audit", short_help="What was changed, forced or switched, signed and chained.")
def audit_command() -> None:
    """The audit log: every change of flags, every override, every switch of the breaker, every start."""


@audit_command.command("show")
@_file
@click.option("--last", type=click.IntRange(1), metavar="N", help="Only the last N entries.")
@talks_to_node
def show(*, client: ApiClient, as_json: bool, file: str | None, last: int | None) -> None:
    """Print the entries, the first one first. With --json each on a line of its own, as it was written."""
    lines = list(_of_file(file) if file else _of_node(client))
    first = max(0, len(lines) - last) if last else 0
    if as_json:
        for line in lines[first:]:
            click.echo(line.decode("utf-8", "replace"))
        return
    rows = [_row(number, line) for number, line in enumerate(lines[first:], start=first + 1)]
    print_table(("#", "AT", "ACT", "BY", "WHAT"), rows)


def _row(number: int, line: bytes) -> tuple[str, ...]:
    from datetime import UTC, datetime

    try:
        told = json.loads(line)
        at = datetime.fromtimestamp(told["at_ms"] / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
        what = _what(told["details"])
        reason = f" ({told['reason']})" if told["reason"] else ""
        return (str(number), at, _line(told["act"]), _line(told["author"]), _line(what + reason))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, OSError):
        return (str(number), "-", "-", "-", "this line cannot be read; see 'bzzz audit verify'")


def _what(details: dict[str, Any]) -> str:
    if changes := details.get("changes"):
        return ", ".join(f"{name}: {_short(one['before'])} -> {_short(one['after'])}" for name, one in changes.items())
    if "before" in details:
        return f"{details['before']} -> {details['after']}"
    return f"in force: {details['in_force']}" if "in_force" in details else ""


def _short(value: object) -> str:
    if isinstance(value, dict):
        return str(value.get("force", value))
    return "-" if value is None else str(value)


def _line(text: object) -> str:
    """What stands in a log was written by anybody: nothing in it may move the cursor."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(text))


@audit_command.command("verify", short_help="Check every line, its signature and its place.")
@_file
@click.option("--node", metavar="PEER", help="The peer id of the node whose log it must be.")
@talks_to_node
def verify(*, client: ApiClient, as_json: bool, file: str | None, node: str | None) -> None:
    """Check every line: its signature, and that it follows the one before. Exit code 1 names the first broken one."""
    from protocols.audit_log import check

    told: dict[str, Any] = {}
    if file:
        lines, note = _whole(list(_of_file(file)), file)
    else:
        told = client.call("GET", "/v1/audit", {"limit": 1}).data
        lines, note = list(_of_node(client))[: told["entries"]], ""
    verdict = check(lines, node=node or told.get("node"))
    broken, why = verdict.broken, verdict.why
    if not lines:
        broken, why = 1, "it is not there: a node writes one at each start, so everything was cut off"
    if told and broken is None and (verdict.good, verdict.head) != (told["entries"], told["head"]):
        broken = verdict.good + 1
        why = f"the node wrote {told['entries']} entries, and its log has {verdict.good}: the last ones were cut off"
    if as_json:
        print_json({"ok": broken is None, "entries": verdict.good, "head": verdict.head, "node": verdict.node,
                    "broken": broken, "why": why})  # fmt: skip
        click.get_current_context().exit(int(broken is not None))
    if broken is not None:
        raise Failure(f"line {broken} is broken: {why}; before it, {verdict.good} good", 1)
    click.echo(
        f"{verdict.good} entries of {verdict.node or 'nobody'}, all as they were written\n  head  {verdict.head}"
    )
    if note:
        click.echo(f"bzzz: {note}", err=True)


def _whole(lines: list[bytes], file: str) -> tuple[list[bytes], str]:
    """The lines without a last one that was never finished: that is a crash while it was written, and no break."""
    with open(file, "rb") as opened:
        opened.seek(max(0, opened.seek(0, 2) - 1))
        is_finished = opened.read(1) in (b"\n", b"")
    if is_finished:
        return lines, ""
    return lines[:-1], "its last line was never finished, and so acknowledged to nobody; the next start cuts it off"


def _of_file(file: str) -> Iterator[bytes]:
    try:
        with open(file, "rb") as opened:
            for line in opened:
                yield line.removesuffix(b"\n")
    except OSError as error:
        raise click.BadParameter(f"{file} cannot be read ({error.strerror})", param_hint="'--file'") from None


def _of_node(client: ApiClient) -> Iterator[bytes]:
    after = 0
    while True:
        lines = client.call("GET", "/v1/audit", {"after": after, "limit": _PAGE}).data["lines"]
        yield from (line.encode("utf-8", "replace") for line in lines)
        after += len(lines)
        if len(lines) < _PAGE:
            return
