"""`bzzz peers`: the nodes that a node knows, and how one that is gone for good is removed."""

import json
import sys
from typing import Any

import click

from node.commands import exit_codes
from node.commands.client import JSON_TYPE, ApiClient, Failure
from node.commands.options import GroupWithDefault, author_option, reason_option, talks_to_node
from node.commands.output import print_json, print_line, print_note, print_table, report


@click.group("peers", cls=GroupWithDefault, short_help="List the other nodes that this node knows, or forget one.")
def peers_command() -> None:
    """List the other nodes that this node knows, or forget one that is gone for good.

    'bzzz peers' means 'bzzz peers show'.
    """


@peers_command.command("show")
@talks_to_node
def show(*, client: ApiClient, as_json: bool) -> None:
    """List the other nodes that this node knows.

    STATE is 'connected', 'suspect' (connected, but it did not answer in time), 'idle' (it need not be connected,
    because the swarm is large; it is dialled when it is wanted), 'known' (not connected; it is dialled) or 'refused'.
    HINTS counts the writes of this node that the other one does not have yet; see 'bzzz pending'. FOUND BY names who
    reported the node. Below the table is why a node is not connected. --json has all addresses, and the age of each
    report.
    """
    peers = all_peers(client)
    if as_json:
        print_json({"peers": peers, "total": len(peers)})
        return
    if not peers:
        click.echo("this node knows no other node yet; 'bzzz up --bootstrap NODE' names one to start with")
        return
    print_table(_HEAD, [_peer(peer) for peer in peers])
    for peer in peers:
        if peer["last_error"]:
            print_line(f"{peer['name'] or peer['peer_id'] or _addresses(peer)}: {peer['last_error']}")


def all_peers(client: ApiClient) -> list[dict[str, Any]]:
    """The other nodes that a node knows, fetched a page at a time; one that changes its place meanwhile comes once."""
    peers: dict[str, dict[str, Any]] = {}
    after = 0
    while True:
        page = client.call("GET", "/v1/peers", {"after": str(after), "limit": str(_PAGE)}).data
        for peer in page["peers"]:
            peers.setdefault(peer["peer_id"] or str(peer["multiaddrs"]), peer)
        after += len(page["peers"])
        if not page["peers"] or after >= page["total"]:
            return list(peers.values())


_PAGE = 500
_HEAD = (
    "NAME", "STATE", "LAST SEEN", "HINTS", "RTT", "CLOCK", "FOUND BY", "RUNS", "CAPABILITIES", "PEER", "ADDRESS",
)  # fmt: skip


def _peer(peer: dict[str, Any]) -> tuple[str, ...]:
    return (
        peer["name"] or "-",
        peer["state"],
        peer["last_seen"] or "never",
        str(peer["owed"]),
        "-" if peer["round_trip_ms"] is None else f"{peer['round_trip_ms']:.1f} ms",
        "-" if peer["clock_offset_ms"] is None else f"{peer['clock_offset_ms'] / 1000:+.3f} s",
        ", ".join(source["source"] for source in peer["sources"]) or "-",
        peer["agent"] or "-",
        ", ".join(peer["capabilities"]) or "-",
        peer["peer_id"] or "-",
        _addresses(peer),
    )


def _addresses(peer: dict[str, Any]) -> str:
    """The address that is most likely the right one, and how many others there are."""
    first, *others = [address.partition("/p2p/")[0] for address in peer["multiaddrs"]] or ["-"]
    return f"{first} and {len(others)} more" if others else first


@peers_command.command("forget", short_help="Remove a node that is gone for good.")
@click.argument("peer", metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask before it is removed.")
@reason_option
@author_option
@talks_to_node
def forget(*, client: ApiClient, as_json: bool, peer: str, yes: bool, reason: str, author: str) -> None:
    """Remove the node ID (its peer id, or its name) from those that this node knows. It must not be connected.

    Writes do not count it any more, and an address that no other node has is 'not found' again. Writes that it did not
    have go to the nodes that hold in its place; the command first shows how many there are. Each node of the swarm
    remembers for itself: run it on each. When the node comes back, it is a new one.
    """
    found = _named(client, peer)
    print_note(
        f"{found['name'] or 'a node without a name'} ({found['peer_id']}): {found['state']}, last seen "
        f"{found['last_seen'] or 'never'}; it does not have {found['owed']} of this node's writes"
    )
    if not yes:
        if sys.stdin is None or not sys.stdin.isatty():
            raise click.UsageError("no terminal to ask whether it may be removed; give --yes")
        click.confirm("forget it?", abort=True, err=True)
    body = json.dumps({"peer_id": found["peer_id"], "reason": reason, "author": author}).encode()
    reply = client.call("POST", "/v1/peers/forget", headers={"Content-Type": JSON_TYPE}, body=body)
    with report("it is forgotten"):
        if as_json:
            print_json(reply.data)
        else:
            print_line(reply.message)


def _named(client: ApiClient, peer: str) -> dict[str, Any]:
    """The node with this peer id, or the only one with this name."""
    peers = [each for each in all_peers(client) if each["member"]]
    found = [each for each in peers if each["peer_id"] == peer] or [each for each in peers if each["name"] == peer]
    if not found:
        raise Failure(f"this node knows no node {peer!r}; 'bzzz peers' lists them", exit_codes.NOT_THERE)
    if len(found) > 1:
        ids = ", ".join(each["peer_id"] for each in found)
        raise click.BadParameter(f"{len(found)} nodes have the name {peer!r}; give one of {ids}", param_hint="ID")
    return found[0]
