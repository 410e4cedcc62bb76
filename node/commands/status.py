"""`bzzz peers`, `id` and `pending`: who the node is, whom it sees, and what it owes."""

from typing import Any

import click

from node.commands.client import ApiClient, in_words, print_json, print_table, talks_to_node


@click.command("peers")
@talks_to_node
def peers_command(*, client: ApiClient, as_json: bool) -> None:
    """List the nodes that this one knows."""
    data = client.call("GET", "/v1/peers").data
    if as_json:
        print_json(data)
        return
    if not data["peers"]:
        click.echo("no other node is known yet; --bootstrap names one when a node starts")
        return
    print_table(("NAME", "STATE", "LAST SEEN", "OWED", "PEER", "ADDRESS"), [_peer(peer) for peer in data["peers"]])


def _peer(peer: dict[str, Any]) -> tuple[str, ...]:
    state = "suspect" if peer["suspect"] else "connected" if peer["connected"] else "away"
    address = peer["multiaddrs"][0].partition("/p2p/")[0] if peer["multiaddrs"] else "-"
    return (peer["name"] or "-", state, peer["last_seen"] or "never", str(peer["owed"]), peer["peer_id"], address)


@click.command("id")
@talks_to_node
def id_command(*, client: ApiClient, as_json: bool) -> None:
    """Say who the node is, and where other nodes reach it."""
    data = client.call("GET", "/v1/node").data
    if as_json:
        print_json(data)
        return
    click.echo(data["peer_id"])
    click.echo(f"  name     {data['name']}\n  network  {data['network']}\n  backend  {data['backend']}")
    click.echo(f"  log      {data['log']}, {data['sequence']} entries\n  up       {in_words(data['uptime_ms'])}")
    for address in data["multiaddrs"]:
        click.echo(f"  at       {address}")


@click.command("pending")
@click.option("--refused", "state", flag_value="refused", help="List what was refused for good.")
@click.option("--owed", "state", flag_value="owed", help="List what is still to be sent.")
@talks_to_node
def pending_command(*, client: ApiClient, as_json: bool, state: str | None) -> None:
    """Say what this node still owes to others."""
    data = client.call("GET", "/v1/pending", {"state": state}).data
    if as_json:
        print_json(data)
        return
    oldest = f", the oldest for {in_words(data['oldest_age_ms'])}" if data["oldest_age_ms"] is not None else ""
    click.echo(f"{data['count']} to be sent{oldest}; {data['refused']} refused for good")
    if data.get("hints"):
        rows = [
            (one["holder"][-8:], in_words(one["age_ms"]), str(one["attempts"]), one["address"], one["refusal"] or "-")
            for one in data["hints"]
        ]
        print_table(("TO", "AGE", "TRIED", "ADDRESS", "WHY NOT YET"), rows)
