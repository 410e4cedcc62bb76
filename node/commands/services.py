"""`bzzz services`: what the nodes of the swarm offer."""

from typing import Any

import click
from click.shell_completion import CompletionItem

from node.commands.client import ApiClient
from node.commands.options import talks_to_node
from node.commands.output import print_json, print_note, print_table

_KINDS = ("role", "model", "service", "label")


def _complete(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(kind) for kind in _KINDS if kind.startswith(incomplete)]


@click.command("services", short_help="List what the nodes of the swarm offer.")
@click.argument("capability", default="", metavar="[CAPABILITY]", shell_complete=_complete)
@click.option("--peer", metavar="NODE", help="Only what this node offers: its peer id, or its name.")
@talks_to_node
def services_command(*, client: ApiClient, as_json: bool, capability: str, peer: str | None) -> None:
    """List what the nodes of the swarm offer, this one included. 'bzzz capability set' says what a node offers.

    CAPABILITY leaves out all others: a kind (role, model, service, label), a name, or the beginning of a capability up
    to a version or value.

    \b
    bzzz services model:llama3
    bzzz services service --peer ada

    STATE is 'connected', 'idle' for a node that need not be connected (it is dialled when it is wanted), or 'away' for
    one that announced itself and is not connected now. What a node offers is gone once it has left, or one minute after
    the last node lost the connection to it.
    """
    data = client.call("GET", "/v1/services", {"capability": capability or None, "peer": peer}).data
    if as_json:
        print_json(data)
        return
    if not data["services"]:
        click.echo("no node that is known here offers that" if capability or peer else "no node offers anything")
        return
    print_table(("CAPABILITY", "NODE", "STATE", "PEER"), [_row(offer) for offer in data["services"]])
    if data["total"] > len(data["services"]):
        print_note(f"{data['total']} are offered; the first {len(data['services'])} are shown")


def _row(offer: dict[str, Any]) -> tuple[str, ...]:
    node = offer["node"]
    state = "this node" if node["own"] else next((name for name in ("connected", "idle") if node[name]), "away")
    return offer["capability"], node["name"] or "-", state, node["peer_id"]
