"""`bzzz config show` and `check`: what a node would start with, and where each value came from."""

import click

from node.commands.client import Failure, print_json, print_table


@click.group("config")
def config_command() -> None:
    """What a node is told, and by whom."""


@config_command.command("show")
@click.option("--config", metavar="FILE", help="The file to read (BZZZ_CONFIG).")
@click.option("--profile", metavar="NAME", help="Settings that ship with BZZZ, under those of FILE (BZZZ_PROFILE).")
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON, on one line.")
def show(*, config: str | None, profile: str | None, as_json: bool) -> None:
    """Print each setting, its value and its origin; secrets as stars.

    This is what a node would start with here; 'bzzz flags' says what is in force in one that runs.
    """
    from node.config.file import ConfigError
    from node.config.load import load

    try:
        settings = load({"config": config, "profile": profile})
    except ConfigError as error:
        raise Failure(str(error), 2) from None
    if as_json:
        print_json({name: {"value": value, "origin": origin} for name, value, origin in settings.rows()})
    else:
        print_table(("NAME", "VALUE", "ORIGIN"), settings.rows())
    for note in () if as_json else settings.notes:
        click.echo(f"bzzz: {note}", err=True)


@config_command.command("check")
@click.argument("file")
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON, on one line.")
def check(*, file: str, as_json: bool) -> None:
    """Say whether a node could start with FILE. Nothing else is looked at, and nothing is started."""
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
        click.echo(f"bzzz: {note}", err=True)
    click.echo(f"{file} is good")
