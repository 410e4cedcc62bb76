"""`bzzz sim list`: the scenarios that come with bzzz."""

import json

import click

from netsim.commands.arguments import load_scenario


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="As JSON, a list of objects with name and about.")
def list_command(as_json: bool) -> None:
    """List the scenarios that come with bzzz."""
    from netsim.scenario import toml

    scenarios = [load_scenario(name) for name in toml.names()]
    if as_json:
        click.echo(json.dumps([{"name": one.name, "about": one.about} for one in scenarios], indent=2))
        return
    width = max(len(one.name) for one in scenarios)
    for scenario in scenarios:
        click.echo(f"{scenario.name:<{width}}  {scenario.about}")
