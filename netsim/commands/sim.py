"""`bzzz sim`: plays scenarios, and lists them. `node/cli.py` finds it by name in its table of commands."""

import click

from netsim.commands.list import list_command
from netsim.commands.live import live_command
from netsim.commands.run import run_command


@click.group("sim", short_help="Play a scenario, and check every promise.")
def sim_command() -> None:
    """Play a scenario in a virtual world, or with five real processes, and check every promise."""


for command in (live_command, list_command, run_command):
    sim_command.add_command(command)
