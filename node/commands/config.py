"""`bzzz config show` and `check`: the settings that a node would start with, and where each comes from."""

import click

from node.commands.client import Failure
from node.commands.options import complete_files, config_option, json_option, profile_option
from node.commands.output import print_json, print_note, print_table


@click.group("config", short_help="Show the settings that a node would start with, or check a file.")
def config_command() -> None:
    """Show the settings that a node would start with, or check a file. No node needs to run."""


@config_command.command("show", short_help="Print each setting, its value and its origin.")
@config_option
@profile_option
@json_option
def show(*, config: str | None, profile: str | None, as_json: bool) -> None:
    """Print each setting with its value and its origin; a secret is printed as stars.

    A node that is started here and now would use them. 'bzzz flags' shows what a running node uses.
    """
    from node.config.file import ConfigError
    from node.config.load import load

    try:
        settings = load({"config": config, "profile": profile})
    except ConfigError as error:
        raise Failure(str(error), 2) from None
    if as_json:
        print_json({name: {"value": value, "origin": origin} for name, value, origin in settings.rows()})
        return
    print_table(("NAME", "VALUE", "ORIGIN"), settings.rows())
    for note in settings.notes:
        print_note(note)


@config_command.command("check")
@click.argument("file", shell_complete=complete_files)
@json_option
def check(*, file: str, as_json: bool) -> None:
    """Check whether a node could start with FILE. This reads only FILE, not the environment, and starts nothing."""
    from node.config.file import ConfigError
    from node.config.load import load

    try:
        settings = load({"config": file}, {})
    except ConfigError as error:
        raise Failure(str(error), 2) from None
    if as_json:
        print_json({"ok": True, "notes": list(settings.notes)})
        return
    for note in settings.notes:
        print_note(note)
    click.echo(f"{file} is valid")
