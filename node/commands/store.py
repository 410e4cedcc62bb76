"""`bzzz store check` and `rebuild`: go through the store's file of a data directory."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from node.commands import exit_codes
from node.commands.client import Failure
from node.commands.options import complete_directories, json_option
from node.commands.output import print_json, report
from protocols.printable import printable

T = TypeVar("T")

_data_dir_option = click.option(
    "--data-dir", metavar="DIR", shell_complete=complete_directories,
    help="The data directory of the node (or set BZZZ_DATA_DIR).  [default: as for 'bzzz up']",
)  # fmt: skip


@click.group("store", short_help="Check the store's file, or rebuild what is derived in it.")
def store_command() -> None:
    """Check the store's file in a data directory, or rebuild what is derived in it. No node needs to run."""


@store_command.command("check", short_help="Check header and content of every version, and what is derived.")
@_data_dir_option
@json_option
def check(*, data_dir: str | None, as_json: bool) -> None:
    """Check that header and content of every version are those that were signed, and that heads and indexes agree.

    Nothing is changed. The node may run: it checks its store by itself too, slowly, sets aside what is damaged and
    fetches it again from another holder. The exit code is 1 if anything is damaged.
    """
    from node.store.sqlite.rebuild import check_store

    path = _store_of(data_dir)
    found = _or_fail(lambda: check_store(path))
    is_ok = not (found.faults or found.structure or found.set_aside)
    if as_json:
        print_json({
            "ok": is_ok, "versions": found.checked, "structure": found.structure,
            "faults": [
                {"sequence": f.sequence, "digest": f.digest.hex(), "address": f.address,
                 "signed_part": f.is_signed_part, "what": f.text}
                for f in found.faults
            ],
            "set_aside": [digest.hex() for digest in found.set_aside],
        })  # fmt: skip
        click.get_current_context().exit(int(not is_ok))
    for fault in found.faults:
        click.echo(f"{fault.digest.hex()}  {printable(fault.address)}: {fault.text}")
    for digest in found.set_aside:
        click.echo(f"{digest.hex()}  its header or content was damaged; it is set aside until a holder answers it")
    if found.structure:
        click.echo(f"the file: {printable(found.structure)}")
    if not is_ok:
        raise Failure(
            f"{len(found.faults) + len(found.set_aside) + bool(found.structure)} faults in {found.checked} versions; a "
            "running node mends them, or sets aside what was signed and fetches it; 'bzzz store rebuild' makes anew "
            "what is derived", exit_codes.FAILED,
        )  # fmt: skip
    click.echo(f"{found.checked} versions, all as their digests say")


@store_command.command("rebuild", short_help="Make heads and indexes anew from the versions. The node must not run.")
@_data_dir_option
@json_option
def rebuild(*, data_dir: str | None, as_json: bool) -> None:
    """Make anew what is derived from the versions: heads, indexes and the columns of their rows.

    Content that is damaged is set aside, and a node fetches it again from a holder. A version whose header is damaged
    is given up: start the node first, which fetches it. The node must not run.
    """
    from node.store.sqlite.rebuild import rebuild_store

    path = _store_of(data_dir)
    versions = _or_fail(lambda: rebuild_store(path))
    with report("the store was rebuilt"):
        if as_json:
            print_json({"versions": versions})
        else:
            click.echo(f"what is derived from {versions} versions was made anew; 'bzzz store check' checks it")


def _store_of(data_dir: str | None) -> Path:
    from node.config.file import ConfigError
    from node.config.load import load

    try:
        return load({"data_dir": data_dir}).data_dir / "store.db"
    except ConfigError as error:
        raise Failure(str(error), exit_codes.WRONG_USE) from None


def _or_fail(work: Callable[[], T]) -> T:
    from node.store.errors import StoreRefused

    try:
        return work()
    except StoreRefused as error:
        raise Failure(str(error), exit_codes.WRONG_USE) from None
    except OSError as error:
        raise Failure(f"the store cannot be used: {error.strerror or error}", exit_codes.FAILED) from None
