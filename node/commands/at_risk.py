"""`bzzz at-risk`: which addresses fewer nodes hold than should."""

import click

from node.commands.client import ApiClient
from node.commands.options import talks_to_node
from node.commands.output import in_words, print_json, print_line, print_table


@click.command("at-risk", short_help="Show how many addresses have fewer replicas than they should.")
@talks_to_node
def at_risk_command(*, client: ApiClient, as_json: bool) -> None:
    """Show how many addresses have fewer replicas than they should, as far as this node knows.

    It knows of what it wrote itself, and of what others wrote and it hands on to other holders. A node that is gone for
    longer than replica_grace is replaced: other nodes hold in its place. What is at risk for long has too few nodes to
    hold it, or a holder that takes nothing: see 'bzzz health' and 'bzzz pending'.
    """
    data = client.call("GET", "/v1/at-risk").data
    if as_json:
        print_json(data)
        return
    at_least = "" if data["complete"] else "at least "
    count = data["addresses"]
    have = "1 address has" if count == 1 else f"{count} addresses have"
    print_line(f"{at_least}{have} fewer replicas than wanted")
    if data["oldest_age_ms"] is not None:
        print_line(f"the oldest for {in_words(data['oldest_age_ms'])}: {data['oldest_address']}")
    if data["by_missing"]:
        print_table(("MISSING", "ADDRESSES"), [(missing, str(n)) for missing, n in data["by_missing"].items()])
    for member in data["replaced"]:
        print_line(f"{member['name']} ({member['peer_id']}) is gone: other nodes hold in its place")
    if data["held"]:
        print_line(data["held"])
