"""`bzzz pending`: the hints of a node, which are its writes that other nodes do not have yet."""

import json
from typing import Any

import click

from node.commands.client import JSON_TYPE, ApiClient
from node.commands.options import GroupWithDefault, author_option, reason_option, talks_to_node
from node.commands.output import in_words, print_json, print_line, print_table, report


@click.group("pending", cls=GroupWithDefault, short_help="Show which writes other nodes do not have yet, or retry.")
def pending_command() -> None:
    """Show which writes of this node other nodes do not have yet. 'bzzz pending' means 'bzzz pending show'.

    The node keeps a hint for each write and each other node that should have it, until that node acknowledges the
    write. It delivers hints by itself, and tries again when a delivery fails. A hint that was refused for good is kept,
    and tried again only by 'bzzz pending retry'.
    """


@pending_command.command("show")
@click.option("--refused", "state", flag_value="refused", help="Also list the hints that were refused for good.")
@click.option("--owed", "state", flag_value="owed", help="Also list the hints that wait to be delivered.")
@talks_to_node
def show(*, client: ApiClient, as_json: bool, state: str | None) -> None:
    """Print how many hints wait, and how many were refused for good."""
    data = client.call("GET", "/v1/pending", {"state": state}).data
    if as_json:
        print_json(data)
        return
    oldest = f", the oldest for {in_words(data['oldest_age_ms'])}" if data["oldest_age_ms"] is not None else ""
    click.echo(f"{data['count']} to be delivered{oldest}; {data['refused']} refused for good")
    if hints := data.get("hints"):
        print_table(("TO", "AGE", "TRIED", "ADDRESS", "LAST REFUSAL"), [_row(hint) for hint in hints])


def _row(hint: dict[str, Any]) -> tuple[str, ...]:
    age, attempts = in_words(hint["age_ms"]), str(hint["attempts"])
    return (hint["holder"][-8:], age, attempts, hint["address"], hint["refusal"] or "-")


@pending_command.command("retry", short_help="Deliver again what was refused for good.")
@reason_option
@author_option
@talks_to_node
def retry(*, client: ApiClient, as_json: bool, reason: str, author: str) -> None:
    """Deliver again every hint that was refused for good, for example after the other node was repaired.

    The command returns at once, and the node delivers. A hint that is refused again is kept again: see
    'bzzz pending --refused'.
    """
    body = json.dumps({"reason": reason, "author": author}).encode()
    reply = client.call("POST", "/v1/pending/retry", headers={"Content-Type": JSON_TYPE}, body=body)
    with report("the node delivers them again"):
        if as_json:
            print_json(reply.data)
        else:
            print_line(reply.message)
