"""`bzzz health`: how the node is, once or again and again."""

import json
import sys
import time
from datetime import datetime
from typing import Any

import click

from node.commands.client import ApiClient, Failure, print_json, table, talks_to_node

CLEAR = "\x1b[H\x1b[2J"
"""Home, and nothing left of what was on the screen (ECMA-48: CUP, ED)."""
UNREACHABLE = 3
EVERY_SECONDS_MIN, EVERY_SECONDS_MAX = 0.1, 3600.0


class _Every(click.ParamType[float]):
    """So many seconds, as a number."""

    name = "SECONDS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            seconds = float(value)
        except ValueError:
            seconds = -1.0
        if not EVERY_SECONDS_MIN <= seconds <= EVERY_SECONDS_MAX:  # nan neither
            self.fail(
                f"{value!r} is no number of seconds from {EVERY_SECONDS_MIN:g} to {EVERY_SECONDS_MAX:g}", param, ctx
            )
        return seconds


@click.command("health")
@click.option(
    "--watch", "every", metavar="[SECONDS]", is_flag=False, flag_value="2", type=_Every(),
    help="Ask again every so many seconds (2), until Ctrl-C; a node that is away is waited for.",
)  # fmt: skip
@talks_to_node
def health_command(*, client: ApiClient, as_json: bool, every: float | None) -> None:
    """Say how the node is, and why. Exit code 1 when it has failed.

    With --watch the screen is drawn anew each time, and --json gives one line for each report.
    """
    if every is not None:
        _watch(client, every, as_json)
        return
    data, code = _report(client)
    if as_json:
        print_json(data)
    else:
        click.echo(_drawn(data))
    click.get_current_context().exit(code)


def _report(client: ApiClient) -> tuple[dict[str, Any], int]:
    """What the node says of itself, and the exit code for that: one that has failed says so as an error."""
    try:
        return client.call("GET", "/health").data, 0
    except Failure as failure:
        if not failure.error or "status" not in failure.error.get("details", {}):
            raise
        return dict(failure.error["details"]), 1


def _watch(client: ApiClient, every: float, as_json: bool) -> None:
    """Until Ctrl-C, which is how this ends and no failure."""
    is_screen = sys.stdout.isatty()
    try:
        while True:
            told = _told(client, as_json)
            if as_json:
                click.echo(told)
            else:
                head = f"{datetime.now().astimezone():%H:%M:%S}, every {every:g} s; Ctrl-C ends"
                click.echo(f"{CLEAR if is_screen else ''}{head}\n{told}{'' if is_screen else chr(10)}")
            sys.stdout.flush()
            time.sleep(every)
    except KeyboardInterrupt:
        click.echo("", err=True)


def _told(client: ApiClient, as_json: bool) -> str:
    """One report, or why there is none now. Raises `Failure` for what will be the same at the next try."""
    try:
        data, _ = _report(client)
    except Failure as failure:
        if failure.exit_code != UNREACHABLE and not (failure.error or {}).get("retryable"):
            raise
        if as_json:
            return json.dumps({"error": failure.error or {"message": failure.message}}, ensure_ascii=False)
        return f"away\n  {failure.message}"
    return json.dumps(data, ensure_ascii=False) if as_json else _drawn(data)


def _drawn(data: dict[str, Any]) -> str:
    """The status, the reasons, and a row for each component."""
    lines = [data["status"], *(f"  {reason}" for reason in data["reasons"])]
    if data["components"]:
        head = ("COMPONENT", "BACKEND", "STATUS", "CHECKED", "ERRORS", "LATENCY")
        lines += table(head, [_component(component) for component in data["components"]])
    return "\n".join(lines)


def _component(one: dict[str, Any]) -> tuple[str, ...]:
    latency = f"{one['latency_ms']:.1f} ms" if one["latency_ms"] else "-"
    return (
        one["component"], one["backend"] or "-", one["status"], _time_of(one["last_check"]), str(one["error_count"]),
        latency,
    )  # fmt: skip


def _time_of(rfc3339: str) -> str:
    """The time of day, as the clocks here show it; '-' when there is none."""
    try:
        return f"{datetime.fromisoformat(rfc3339).astimezone():%H:%M:%S}"
    except ValueError:
        return "-"
