"""`bzzz pending`: the hints of a node, which are its writes that other nodes do not have yet."""

from typing import Any

import click

from node.commands.client import ApiClient
from node.commands.options import GroupWithDefault, talks_to_node
from node.commands.output import in_words, print_json, print_table


@click.group("pending", cls=GroupWithDefault, short_help="Show which writes other nodes do not have yet.")
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
