"""`bzzz peers` and `id`: the nodes that a node knows, and the node itself."""

from typing import Any

import click

from node.commands.client import ApiClient
from node.commands.options import talks_to_node
from node.commands.output import in_words, print_json, print_line, print_table


@click.command("peers", short_help="List the other nodes that this node knows.")
@talks_to_node
def peers_command(*, client: ApiClient, as_json: bool) -> None:
    """List the other nodes that this node knows.

    STATE is 'connected', 'suspect' (connected, but it did not answer in time) or 'away'. HINTS counts the writes of
    this node that the other one does not have yet; see 'bzzz pending'.
    """
    data = client.call("GET", "/v1/peers").data
    if as_json:
        print_json(data)
        return
    if not data["peers"]:
        click.echo("this node knows no other node yet; 'bzzz up --bootstrap NODE' names one to start with")
        return
    print_table(("NAME", "STATE", "LAST SEEN", "HINTS", "PEER", "ADDRESS"), [_peer(peer) for peer in data["peers"]])


def _peer(peer: dict[str, Any]) -> tuple[str, ...]:
    state = "suspect" if peer["suspect"] else "connected" if peer["connected"] else "away"
    address = peer["multiaddrs"][0].partition("/p2p/")[0] if peer["multiaddrs"] else "-"
    return (peer["name"] or "-", state, peer["last_seen"] or "never", str(peer["owed"]), peer["peer_id"], address)


@click.command("id", short_help="Show the node's peer id, name and addresses.")
@talks_to_node
def id_command(*, client: ApiClient, as_json: bool) -> None:
    """Show the node's peer id, its name, its network, its backend, and the addresses where other nodes reach it."""
    data = client.call("GET", "/v1/node").data
    if as_json:
        print_json(data)
        return
    rows = [
        ("name", data["name"]), ("network", data["network"]), ("backend", data["backend"]),
        ("log", f"{data['log']}, {data['sequence']} entries"), ("up", in_words(data["uptime_ms"])),
        *(("at", address) for address in data["multiaddrs"]),
    ]  # fmt: skip
    print_line(data["peer_id"])
    for name, value in rows:
        print_line(f"  {name:<7}  {value}")
