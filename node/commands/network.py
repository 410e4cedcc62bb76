"""`bzzz network`: makes the key of a private network."""

import os

import click

from node.commands import exit_codes
from node.commands.client import Failure
from node.commands.options import complete_files, json_option
from node.commands.output import print_json, print_line, print_note
from protocols.names import is_name
from protocols.network_key import KEY_BYTES, Invitation, key_file, phrase


@click.group("network", short_help="Make the key of a private network.")
def network_command() -> None:
    """Make the key of a private network, which only nodes with that key can join."""


@network_command.command("create", short_help="Make a key, and print the phrase to join with.")
@click.option("--name", metavar="NAME", default="bzzz", show_default=True, help="The name of the network.")
@click.option(
    "--key-file",
    "path",
    metavar="FILE",
    shell_complete=complete_files,
    help="Write the key to this new file too, as swarm.key of other libp2p programs.",
)
@json_option
def create(*, name: str, path: str | None, as_json: bool) -> None:
    """Make a key, and print the phrase to join with: bzzz up --join PHRASE.

    The phrase is a secret: anyone who has it can join, and only a new key shuts them out again. It is stored nowhere
    else.
    """
    if not is_name(name):
        raise click.BadParameter("a name is 1 to 64 letters, digits, '-', '_' and '.'", param_hint="'--name'")
    invitation = Invitation(name, os.urandom(KEY_BYTES))
    if path is not None:
        _write(path, invitation.key)
    if as_json:
        print_json({"network": name, "join": phrase(invitation), "key_file": path})
        return
    print_line(phrase(invitation))
    print_note("keep it secret: anyone who has it can join. Each node of the network: bzzz up --join PHRASE")


def _write(path: str, key: bytes) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(key_file(key))
    except OSError as error:
        raise Failure(f"the key cannot be written to {path} ({error.strerror or error})", exit_codes.FAILED) from None
