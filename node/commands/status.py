"""`bzzz id`: the node itself."""

import click

from node.commands.client import ApiClient
from node.commands.options import talks_to_node
from node.commands.output import in_words, print_json, print_line


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
        *((("lacks", data["lacks"]),) if data["lacks"] else ()),
    ]  # fmt: skip
    print_line(data["peer_id"])
    for name, value in rows:
        print_line(f"  {name:<7}  {value}")
