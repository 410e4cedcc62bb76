"""`bzzz flags`: what can change while a node runs, and the changing of it."""

import getpass
import json
import os
from typing import Any

import click

from node.commands.client import JSON_TYPE, ApiClient, print_json, print_table, talks_to_node

_reason = click.option("--reason", metavar="TEXT", default="", help="Why, for the audit log.")
_author = click.option("--author", metavar="NAME", help="Who, for the audit log.  [default: who runs the command]")


class _ShowsByDefault(click.Group):
    """A group that takes its command `show` for meant when none is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        is_named = bool(args) and (not args[0].startswith("-") or args[0] in ctx.help_option_names)
        return super().parse_args(ctx, args if is_named else ["show", *args])


@click.group("flags", cls=_ShowsByDefault)
def flags_command() -> None:
    """Show and change what can change while a node runs. 'bzzz flags' alone shows it.

    A change is put in force whole or refused whole, is written to the audit log, and holds until it is unset, also
    over a restart. No call that is under way fails for it.
    """


@flags_command.command("show")
@talks_to_node
def show(*, client: ApiClient, as_json: bool) -> None:
    """Print each flag, its value and who set it."""
    _tell(client.call("GET", "/v1/flags").data, as_json)


@flags_command.command("set", short_help="Set flags, as NAME=VALUE.")
@click.argument("changes", nargs=-1, required=True, metavar="NAME=VALUE...")
@_reason
@_author
@talks_to_node
def set_(*, client: ApiClient, as_json: bool, changes: tuple[str, ...], reason: str, author: str | None) -> None:
    """Set flags: backend=mock, rollout_percent=25, deadline_ms=200ms, fallback_on_error=false ..."""
    told: dict[str, Any] = {}
    for change in changes:
        name, separator, value = change.partition("=")
        if not (separator and name and value):
            raise click.BadParameter(f"{change!r} is not NAME=VALUE", param_hint="NAME=VALUE")
        if name in told:
            raise click.BadParameter(f"{name} is named twice", param_hint="NAME=VALUE")
        told[name] = _value(value)
    _change(client, told, reason, author, as_json)


@flags_command.command("unset")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@_reason
@_author
@talks_to_node
def unset(*, client: ApiClient, as_json: bool, names: tuple[str, ...], reason: str, author: str | None) -> None:
    """Go back to what is configured."""
    _change(client, dict.fromkeys(names), reason, author, as_json)


@flags_command.command("force", short_help="Override: mock, or the breaker open or closed.")
@click.argument("what", type=click.Choice(["mock", "open", "closed"]))
@click.option("--reason", metavar="TEXT", required=True, help="Why, for the audit log and the health report.")
@click.option("--for", "expires_in", metavar="DURATION", default="1h", show_default=True, help="For how long.")
@_author
@talks_to_node
def force(*, client: ApiClient, as_json: bool, what: str, reason: str, expires_in: str, author: str | None) -> None:
    """Override: this machine alone (mock), or the breaker open or closed, whatever it has learned.

    It ends by itself after its time, or by 'bzzz flags release'.
    """
    _change(client, {"override": what, "expires_in": expires_in}, reason, author, as_json)


@flags_command.command("release")
@_reason
@_author
@talks_to_node
def release(*, client: ApiClient, as_json: bool, reason: str, author: str | None) -> None:
    """End the override."""
    _change(client, {"override": None}, reason, author, as_json)


def _change(client: ApiClient, told: dict[str, Any], reason: str, author: str | None, as_json: bool) -> None:
    body = {**told, "reason": reason, "author": author or _who()}
    headers = {"Content-Type": JSON_TYPE}
    _tell(client.call("PATCH", "/v1/flags", headers=headers, body=json.dumps(body).encode()).data, as_json)


def _value(text: str) -> Any:
    """`25`, `12.5`, `true` and `false` as what they look like; everything else is text."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, bool | int | float) else text


def _who() -> str:
    """Who runs the command, as far as the system knows."""
    try:
        return f"{getpass.getuser()}@{os.uname().nodename}"[:100]
    except (OSError, KeyError):
        return f"user {os.getuid()}"


def _tell(data: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(data)
        return
    origins = data["origins"]
    print_table(("NAME", "VALUE", "SET BY"), [(n, _shown(v), origins[n]) for n, v in data["flags"].items()])
    click.echo(f"in force: {data['in_force']}")
    if override := data["override"]:
        click.echo(
            f"forced {override['force']} by {override['author']} until {override['expires_at']}: {override['reason']}"
        )
    if data["breaker"]:
        click.echo(f"breaker {data['breaker']['state']}: {data['breaker']['why']}")
    shadow = data["shadow"]
    if any(shadow.values()):
        click.echo(
            f"shadow reads: {shadow['reads']}, of which {shadow['mismatches']} found more than the answer had; "
            f"{shadow['failures']} failed, {shadow['skipped']} were skipped"
        )
    for note in (*data["notes"], *data["faults"]):
        click.echo(f"bzzz: {note}", err=True)


def _shown(value: object) -> str:
    return "-" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
