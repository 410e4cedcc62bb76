"""`bzzz capability`: what this node offers to others."""

import json
from collections.abc import Callable
from typing import Any

import click
from click.shell_completion import CompletionItem

from node.commands import exit_codes
from node.commands.client import JSON_TYPE, ApiClient, Failure
from node.commands.options import author_option, reason_option, talks_to_node
from node.commands.output import print_json, print_line, report
from protocols.capabilities import Capability, matches, ordered, parse, text_of
from protocols.errors import InvalidPayload

_ATTEMPTS = 5
"""How often a change is made again when another one came between."""
_KINDS = ("role:", "model:", "service:", "label:")


def _complete(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(kind) for kind in _KINDS if kind.startswith(incomplete)]


@click.group("capability", short_help="Show or change what a running node offers to others.")
def capability_command() -> None:
    """Show or change what a running node offers to others.

    \b
    role:NAME                       it acts in a role
    model:NAME[@VERSION][#DIGEST]   it runs a model; DIGEST is its SHA-256
    service:NAME=ENDPOINT           it serves something: a URL, a multiaddr or host:port
    label:NAME[=VALUE]              anything else

    All other nodes know a change within a second; 'bzzz services' shows what all nodes offer. What is set here replaces
    the setting 'capabilities' of the configuration, and holds over restarts until 'bzzz capability unset'.
    """


@capability_command.command("list")
@talks_to_node
def list_(*, client: ApiClient, as_json: bool) -> None:
    """Print what the node offers."""
    _print(client.call("GET", "/v1/capabilities").data, as_json)


@capability_command.command("set", short_help="Add capabilities, or replace those of the same name.")
@click.argument("capabilities", nargs=-1, required=True, metavar="CAPABILITY...", shell_complete=_complete)
@reason_option
@author_option
@talks_to_node
def set_(*, client: ApiClient, as_json: bool, capabilities: tuple[str, ...], reason: str, author: str) -> None:
    """Add capabilities, or replace those of the same name. A model may be there in several versions.

    \b
    bzzz capability set role:planner model:llama3@70b service:embed=http://192.0.2.7:9000
    """
    added = [_parsed(text) for text in capabilities]
    _change(client, lambda before: _checked([*before, *added]), reason, author, as_json)


@capability_command.command("remove", short_help="Remove capabilities.")
@click.argument("capabilities", nargs=-1, required=True, metavar="CAPABILITY...", shell_complete=_complete)
@reason_option
@author_option
@talks_to_node
def remove(*, client: ApiClient, as_json: bool, capabilities: tuple[str, ...], reason: str, author: str) -> None:
    """Remove capabilities. 'model:llama3' removes all versions of it, 'model' all models."""

    def without(before: list[Capability]) -> list[Capability]:
        for wanted in capabilities:
            if not any(matches(each, wanted) for each in before):
                raise Failure(
                    f"this node does not offer {wanted!r}; 'bzzz capability list' prints what it does",
                    exit_codes.NOT_THERE,
                )
        return [each for each in before if not any(matches(each, wanted) for wanted in capabilities)]

    _change(client, without, reason, author, as_json)


@capability_command.command("unset")
@reason_option
@author_option
@talks_to_node
def unset(*, client: ApiClient, as_json: bool, reason: str, author: str) -> None:
    """Return to the capabilities of the configuration."""
    _put(client, {"capabilities": None}, reason, author, as_json)


def _change(
    client: ApiClient,
    change: Callable[[list[Capability]], list[Capability]],
    reason: str,
    author: str,
    as_json: bool,
) -> None:
    """Change what the node offers, also when another change is made at the same time."""
    for attempt in range(1, _ATTEMPTS + 1):
        data = client.call("GET", "/v1/capabilities").data
        after = change([parse(text) for text in data["capabilities"]])
        body = {"capabilities": [text_of(each) for each in after], "revision": data["revision"]}
        try:
            _put(client, body, reason, author, as_json)
            return
        except Failure as failure:
            if failure.exit_code != exit_codes.CONFLICT or attempt == _ATTEMPTS:
                raise


def _put(client: ApiClient, body: dict[str, Any], reason: str, author: str, as_json: bool) -> None:
    sent = json.dumps({**body, "reason": reason, "author": author}).encode()
    reply = client.call("PUT", "/v1/capabilities", headers={"Content-Type": JSON_TYPE}, body=sent)
    with report("the capabilities are changed"):
        _print(reply.data, as_json)


def _parsed(text: str) -> Capability:
    try:
        return parse(text)
    except InvalidPayload as error:
        raise click.BadParameter(error.message, param_hint="CAPABILITY") from None


def _checked(capabilities: list[Capability]) -> list[Capability]:
    try:
        return list(ordered(capabilities))
    except InvalidPayload as error:
        raise click.BadParameter(error.message, param_hint="CAPABILITY") from None


def _print(data: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(data)
        return
    for text in data["capabilities"]:
        print_line(text)
    if not data["capabilities"]:
        click.echo("this node offers nothing; 'bzzz capability set' names what it offers")
