"""`bzzz health`: prints the health report of a node, once or repeatedly."""

import sys
import time
from datetime import datetime
from typing import Any

import click

from node.commands import exit_codes
from node.commands.client import ApiClient, Failure
from node.commands.options import talks_to_node
from node.commands.output import json_line, print_json, table
from node.config import values
from node.terminal import has_control
from protocols.printable import printable

CLEAR = "\x1b[H\x1b[2J"
"""Moves the cursor home and clears the screen (ECMA-48: CUP, ED)."""
EVERY_SECONDS_MIN, EVERY_SECONDS_MAX = 0.1, 3600.0


class _Every(click.ParamType[float]):
    """An interval in seconds, or with a unit."""

    name = "SECONDS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            seconds = float(value) if _is_number(value) else values.milliseconds(value) / 1000
        except ValueError:
            seconds = -1.0
        if not EVERY_SECONDS_MIN <= seconds <= EVERY_SECONDS_MAX:  # also true for nan
            self.fail(
                f"{value!r} is not a number of seconds from {EVERY_SECONDS_MIN:g} to {EVERY_SECONDS_MAX:g}", param, ctx
            )
        return seconds


def _is_number(value: Any) -> bool:
    return str(value).strip()[-1:].isdigit()


@click.command("health", short_help="Show whether the node works, and what is wrong.")
@click.option(
    "--watch", "every", metavar="[SECONDS]", is_flag=False, flag_value="2", type=_Every(),
    help="Print a report every SECONDS (2 if not given) until Ctrl-C, also while the node cannot be reached.",
)  # fmt: skip
@talks_to_node
def health_command(*, client: ApiClient, as_json: bool, every: float | None) -> None:
    """Show whether the node works, and what is wrong: healthy, degraded or failed, the reasons, and each component.

    The exit code is 1 when the node has failed. With --watch each report replaces the one before on the screen; with
    --watch --json each report is one line.
    """
    if every is not None:
        _watch(client, every, as_json)
        return
    data, code = health_report(client)
    if as_json:
        print_json(data)
    else:
        click.echo(_text(data))
    click.get_current_context().exit(code)


def health_report(client: ApiClient) -> tuple[dict[str, Any], int]:
    """The report and the exit code. A failed node sends its report as the details of an error."""
    try:
        return client.call("GET", "/health").data, 0
    except Failure as failure:
        if not failure.error or "status" not in failure.error.get("details", {}):
            raise
        return dict(failure.error["details"]), 1


def _watch(client: ApiClient, every: float, as_json: bool) -> None:
    """Print reports until Ctrl-C, which is no failure."""
    is_screen = has_control(sys.stdout)
    try:
        while True:
            report = _report_or_reason(client, as_json)
            if as_json:
                click.echo(report)
            else:
                head = f"{datetime.now().astimezone():%H:%M:%S}, every {every:g} s; Ctrl-C stops"
                click.echo(f"{CLEAR if is_screen else ''}{head}\n{report}{'' if is_screen else chr(10)}")
            sys.stdout.flush()
            time.sleep(every)
    except KeyboardInterrupt:
        click.echo("", err=True)


def _report_or_reason(client: ApiClient, as_json: bool) -> str:
    """One report as text, or why there is none now. Raises `Failure` for an error that another try cannot change."""
    try:
        data, _ = health_report(client)
    except Failure as failure:
        if failure.exit_code != exit_codes.UNREACHABLE and not (failure.error or {}).get("retryable"):
            raise
        if as_json:
            return json_line({"error": failure.error or {"message": failure.message}})
        return f"away\n  {printable(failure.message)}"
    return json_line(data) if as_json else _text(data)


def _text(data: dict[str, Any]) -> str:
    """The status, the reasons, and a table of the components."""
    lines = [data["status"], *(f"  {printable(reason)}" for reason in data["reasons"])]
    if data["components"]:
        head = ("COMPONENT", "BACKEND", "STATUS", "CHECKED", "ERRORS", "LATENCY")
        lines += table(head, [_component(component) for component in data["components"]])
    return "\n".join(lines)


def _component(component: dict[str, Any]) -> tuple[str, ...]:
    latency = f"{component['latency_ms']:.1f} ms" if component["latency_ms"] else "-"
    return (
        component["component"], component["backend"] or "-", component["status"], _time_of(component["last_check"]),
        str(component["error_count"]), latency,
    )  # fmt: skip


def _time_of(rfc3339: str) -> str:
    """The time of day in the local time zone; '-' without one."""
    try:
        return f"{datetime.fromisoformat(rfc3339).astimezone():%H:%M:%S}"
    except ValueError:
        return "-"
