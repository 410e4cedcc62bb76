"""`bzzz audit show`, `verify` and `rotate`: prints, checks and rotates the audit log of a node.

The check runs here and not in the node, because an attacker who can change the node's log can also change its answers.
"""

import json
from collections.abc import Iterator
from typing import Any

import click

from node.commands.client import JSON_TYPE, ApiClient, Failure
from node.commands.options import author_option, complete_files, reason_option, talks_to_node
from node.commands.output import print_content, print_json, print_line, print_note, print_table, report

_file_option = click.option(
    "--file", metavar="FILE", shell_complete=complete_files,
    help="Read this file (audit.log in the data directory of a node) instead of asking a node.",
)  # fmt: skip
_PAGE = 1000


@click.group("audit", short_help="Print, check or rotate the audit log.")
def audit_command() -> None:
    """Print the audit log of a node, or check that it was not changed.

    The log has an entry for each start, each change of flags, each override, each opening and closing of the breaker,
    each retry of refused hints, and each node that was forgotten. The node signs each entry, and each entry holds the
    hash of the one before it.
    """


@audit_command.command("show")
@_file_option
@click.option("--last", type=click.IntRange(1), metavar="N", help="Print only the last N entries.")
@talks_to_node
def show(*, client: ApiClient, as_json: bool, file: str | None, last: int | None) -> None:
    """Print the entries, the oldest one first. With --json each entry is one line, exactly as the node wrote it."""
    lines = [line.removesuffix(b"\n") for line in _of_file(file)] if file else list(_of_node(client))
    first = max(0, len(lines) - last) if last else 0
    if as_json:
        print_content(b"".join(line + b"\n" for line in lines[first:]))
        return
    rows = [_row(number, line) for number, line in enumerate(lines[first:], start=first + 1)]
    print_table(("#", "AT", "ACT", "BY", "WHAT"), rows)


def _row(number: int, line: bytes) -> tuple[str, ...]:
    from datetime import UTC, datetime

    try:
        entry = json.loads(line)
        at = datetime.fromtimestamp(entry["at_ms"] / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
        what = _what(entry["details"])
        reason = f" ({entry['reason']})" if entry["reason"] else ""
        return (str(number), at, str(entry["act"]), str(entry["author"]), what + reason)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, OSError):
        return (str(number), "-", "-", "-", "this line cannot be read; run 'bzzz audit verify'")


def _what(details: dict[str, Any]) -> str:
    if changes := details.get("changes"):
        return ", ".join(f"{name}: {_short(c['before'])} -> {_short(c['after'])}" for name, c in changes.items())
    if "before" in details:
        return f"{details['before']} -> {details['after']}"
    if "peer" in details:
        return f"{details.get('name') or details['peer']}, which did not have {details.get('owed')} writes"
    for name in ("capabilities", "configured"):
        if isinstance(details.get(name), list):
            return f"{name}: {', '.join(details[name]) or 'none'}"
    if "hints" in details:
        return f"{details['hints']} refused hints"
    return f"in force: {details['in_force']}" if "in_force" in details else ""


def _short(value: object) -> str:
    if isinstance(value, dict):
        return str(value.get("force", value))
    return "-" if value is None else str(value)


@audit_command.command("verify", short_help="Check the signature and the place of every line.")
@_file_option
@click.option("--node", metavar="PEER", help="The peer id of the node that must have written the log.")
@talks_to_node
def verify(*, client: ApiClient, as_json: bool, file: str | None, node: str | None) -> None:
    """Check the signature of every line, and that it follows the line before it.

    The exit code is 1 if a line is broken; the first broken one is named. A log that was rotated is checked across its
    files, as many as are there: a file that begins with its rotation may be the first one.
    """
    from protocols.audit_log import check

    state: dict[str, Any] = {}
    if file:
        lines, note = _complete(list(_of_file(file)))
    else:
        state = client.call("GET", "/v1/audit", {"limit": 1}).data
        lines, note = _until(list(_of_node(client)), state["entries"]), ""
    verdict = check(lines, node=node or state.get("node"))
    broken, why = verdict.broken, verdict.why
    if not lines:
        broken, why = 1, "it is missing: a node writes a line at each start, so all of them were removed"
    if state and broken is None and (verdict.last, verdict.head) != (state["entries"], state["head"]):
        broken = verdict.good + 1
        why = f"the node wrote {state['entries']} entries, but its log ends with {verdict.last}: the last were removed"
    if broken is None and verdict.first > 1:
        note = note or f"entries 1 to {verdict.first - 1} are in files from before a rotation, which are not here"
    if as_json:
        print_json({"ok": broken is None, "entries": verdict.good, "head": verdict.head, "node": verdict.node,
                    "broken": broken, "why": why})  # fmt: skip
        click.get_current_context().exit(int(broken is not None))
    if broken is not None:
        raise Failure(f"line {broken} is broken: {why}; {verdict.good} lines before it are good", 1)
    click.echo(f"{verdict.good} entries of {verdict.node}, all unchanged\n  head  {verdict.head}")
    if note:
        print_note(note)


def _until(lines: list[bytes], sequence: int) -> list[bytes]:
    """The lines without those that the node wrote after the entry of this number."""
    from protocols.audit_log import ChainBroken, read

    while lines:
        try:
            if read(lines[-1]).sequence <= sequence:
                break
        except ChainBroken:
            break
        lines.pop()
    return lines


def _complete(lines: list[bytes]) -> tuple[list[bytes], str]:
    """The lines without their ends and without an unfinished last one, which a crash during a write leaves behind, and
    a note about that one."""
    finished = [line.removesuffix(b"\n") for line in lines if line.endswith(b"\n")]
    if len(finished) == len(lines):
        return finished, ""
    return finished, "its last line is unfinished: the node stopped while it wrote it; the next start removes it"


def _of_file(file: str) -> Iterator[bytes]:
    from protocols.audit_log import LINE_BYTES_MAX

    try:
        with open(file, "rb") as opened:
            while line := opened.readline(LINE_BYTES_MAX + 2):
                if len(line) > LINE_BYTES_MAX + 1:
                    raise click.BadParameter(
                        f"{file} is not an audit log: it has a line of more than {LINE_BYTES_MAX} bytes",
                        param_hint="'--file'",
                    )
                yield line
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


@audit_command.command("rotate", short_help="Begin a new file; the one before keeps its lines.")
@reason_option
@author_option
@talks_to_node
def rotate(*, client: ApiClient, as_json: bool, reason: str, author: str) -> None:
    """Have the node begin a new audit.log. The one before is named after its entries, audit.1-500.log for example.

    The chain goes on in the new file. Files from before a rotation may be moved elsewhere; never move or cut audit.log
    itself. A node rotates a file of 16 MiB by itself.
    """
    body = json.dumps({"reason": reason, "author": author}).encode()
    reply = client.call("POST", "/v1/audit/rotate", headers={"Content-Type": JSON_TYPE}, body=body)
    with report("the audit log was rotated"):
        if as_json:
            print_json(reply.data)
        else:
            print_line(reply.message)
