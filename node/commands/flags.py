"""`bzzz flags`: shows and changes the settings that can change while a node runs."""

import json
from typing import Any

import click
from click.shell_completion import CompletionItem

from node.commands.client import JSON_TYPE, ApiClient
from node.commands.options import Duration, GroupWithDefault, author_option, reason_option, talks_to_node
from node.commands.output import print_json, print_line, print_note, print_table, report

_FORCED_MS_MAX = 30 * 86_400_000
"""The longest override; the API refuses a longer one."""


def _complete_names(_ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from node.config.flags import NAMES

    end = "=" if param.name == "changes" else ""
    return [CompletionItem(name + end) for name in NAMES if name.startswith(incomplete)]


@click.group("flags", cls=GroupWithDefault, short_help="Show or change the settings of a running node.")
def flags_command() -> None:
    """Show or change the settings of a running node. 'bzzz flags' means 'bzzz flags show'.

    A change takes effect as a whole, or is refused as a whole. It is written to the audit log, and it holds until it is
    unset, also after a restart. No call in progress fails because of it.
    """


@flags_command.command("show")
@talks_to_node
def show(*, client: ApiClient, as_json: bool) -> None:
    """Print each flag with its value and its origin."""
    _print(client.call("GET", "/v1/flags").data, as_json)


@flags_command.command("set", short_help="Set flags, as NAME=VALUE.")
@click.argument("changes", nargs=-1, required=True, metavar="NAME=VALUE...", shell_complete=_complete_names)
@reason_option
@author_option
@talks_to_node
def set_(*, client: ApiClient, as_json: bool, changes: tuple[str, ...], reason: str, author: str) -> None:
    """Set flags. 'bzzz flags' prints their names.

    \b
    bzzz flags set rollout_percent=25 deadline_ms=200ms --reason 'first quarter'
    """
    flags: dict[str, Any] = {}
    for change in changes:
        name, separator, value = change.partition("=")
        if not (separator and name and value):
            raise click.BadParameter(f"{change!r} is not NAME=VALUE", param_hint="NAME=VALUE")
        if name in flags:
            raise click.BadParameter(f"{name} is set twice", param_hint="NAME=VALUE")
        flags[name] = _value(value)
    _change(client, flags, reason, author, as_json)


@flags_command.command("unset")
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=_complete_names)
@reason_option
@author_option
@talks_to_node
def unset(*, client: ApiClient, as_json: bool, names: tuple[str, ...], reason: str, author: str) -> None:
    """Return flags to their configured values."""
    _change(client, dict.fromkeys(names), reason, author, as_json)


@flags_command.command("force", short_help="Override for a while: backend mock, or the breaker open or closed.")
@click.argument("what", type=click.Choice(["mock", "open", "closed"]))
@click.option("--reason", metavar="TEXT", required=True, help="Why; it is in the audit log and in the health report.")
@click.option(
    "--for",
    "expires_in_ms",
    type=Duration(_FORCED_MS_MAX),
    default="1h",
    show_default=True,
    help="For how long; at most 30d.",
)
@author_option
@talks_to_node
def force(*, client: ApiClient, as_json: bool, what: str, reason: str, expires_in_ms: int, author: str) -> None:
    """Override the flags and the breaker for a while.

    \b
    mock    answer from this machine only, whatever the backend is
    open    hold the breaker open: the node does not ask the swarm
    closed  hold the breaker closed: the node asks the swarm, however often it fails

    The override ends after its time, or with 'bzzz flags release'.
    """
    _change(client, {"override": what, "expires_in": f"{expires_in_ms}ms"}, reason, author, as_json)


@flags_command.command("release")
@reason_option
@author_option
@talks_to_node
def release(*, client: ApiClient, as_json: bool, reason: str, author: str) -> None:
    """End the override of 'bzzz flags force'."""
    _change(client, {"override": None}, reason, author, as_json)


def _change(client: ApiClient, change: dict[str, Any], reason: str, author: str, as_json: bool) -> None:
    body = json.dumps({**change, "reason": reason, "author": author}).encode()
    reply = client.call("PATCH", "/v1/flags", headers={"Content-Type": JSON_TYPE}, body=body)
    with report("the flags are changed"):
        _print(reply.data, as_json)


def _value(text: str) -> Any:
    """`25` and `12.5` as numbers, `true` and `false` as booleans, everything else as text."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, bool | int | float) else text


def _print(data: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(data)
        return
    origins = data["origins"]
    print_table(("NAME", "VALUE", "SET BY"), [(n, _cell(v), origins[n]) for n, v in data["flags"].items()])
    print_line(f"in force: {data['in_force']}")
    if override := data["override"]:
        print_line(
            f"forced {override['force']} by {override['author']} until {override['expires_at']}: {override['reason']}"
        )
    if data["breaker"]:
        print_line(f"breaker {data['breaker']['state']}: {data['breaker']['why']}")
    shadow = data["shadow"]
    if any(shadow.values()):
        click.echo(
            f"shadow reads: {shadow['reads']}; {shadow['mismatches']} found more than the answer had, "
            f"{shadow['failures']} failed, {shadow['skipped']} were skipped"
        )
    for note in (*data["notes"], *data["faults"]):
        print_note(note)


def _cell(value: object) -> str:
    return "-" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
