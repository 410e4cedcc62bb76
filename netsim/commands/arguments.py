"""The arguments that commands share: a scenario, and files to write. Wrong ones are refused before the run."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from netsim.scenario.model import Scenario


def load_scenario(name: str) -> "Scenario":
    """A scenario by its name, or from a file. Raises `click.UsageError`."""
    from netsim.scenario import toml
    from netsim.scenario.values import ScenarioRefused

    try:
        return toml.load(name)
    except ScenarioRefused as error:
        raise click.UsageError(str(error)) from None


def refuse_unwritable(*paths: Path | None) -> None:
    """Raises `click.UsageError` for a path in a directory that does not exist."""
    for path in paths:
        if path is not None and not os.path.isdir(path.parent):  # without an error for a name that is too long
            raise click.UsageError(f"{path} cannot be written: there is no directory {path.parent}")


def write_text(path: Path, text: str) -> None:
    """Raises `click.FileError`."""
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise click.FileError(str(path), error.strerror) from None
