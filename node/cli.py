"""`bzzz`: the command line. It imports the file of a command only when that command is used."""

import importlib
import signal
import sys

import click

from node.commands import exit_codes
from node.process import streams
from node.process.streams import OutputFailed

COMMANDS = {
    "up": "node.commands.up",
    "network": "node.commands.network",
    "put": "node.commands.write",
    "delete": "node.commands.write",
    "get": "node.commands.read",
    "history": "node.commands.read",
    "receipt": "node.commands.write",
    "peers": "node.commands.peers",
    "services": "node.commands.services",
    "capability": "node.commands.capability",
    "health": "node.commands.health",
    "doctor": "node.commands.doctor",
    "id": "node.commands.status",
    "pending": "node.commands.pending",
    "at-risk": "node.commands.at_risk",
    "flags": "node.commands.flags",
    "audit": "node.commands.audit",
    "store": "node.commands.store",
    "config": "node.commands.config",
    # The simulator is a layer above the node, which therefore knows it only by this name.
    "sim": "netsim.commands.sim",
    "completion": "node.commands.completion",
}


class _Commands(click.Group):
    """A group of the commands in `COMMANDS`; `NAME` is the function `NAME_command` in its file."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(COMMANDS[cmd_name]), f"{cmd_name.replace('-', '_')}_command")
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            ctx.fail(f"there is no command {args[0]!r}" + (f"; did you mean {near[0]}?" if near else ""))
        return super().resolve_command(ctx, args)


def _print_version(ctx: click.Context, _param: click.Parameter, is_given: bool) -> None:
    if is_given and not ctx.resilient_parsing:
        from importlib.metadata import PackageNotFoundError, version

        try:
            click.echo(f"bzzz {version('bzzz')}")
        except PackageNotFoundError:
            click.echo("bzzz (not installed)")
        ctx.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_print_version, help="Print the version."
)
def cli() -> None:
    """Store the shared context of agents: each machine runs a node, and the nodes together are the store.

    'bzzz up' runs a node. Most other commands talk to a running one, at 127.0.0.1:8080 unless --api or BZZZ_API names
    another.

    
    Exit codes:
      0  done
      1  refused or failed, for a reason that is not below
      2  wrong use, or a node that cannot start
      3  no node can be reached
      4  stored, but not replicated in time
      5  done, but not all of the output could be written
      6  not there: nothing is known at the address, or it was deleted
      7  not now: try again later
      8  conflict: read again, then decide
      9  the address is wrong
    """


def main() -> None:
    """The entry point."""
    streams.repair()
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        # A shell without job control starts what is in the background so. Then only SIGKILL ended a long simulation.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(_run())


def _run() -> int:
    """Run a command and return its exit code. Output that fails is reported, except to a reader that has gone."""
    code, is_reported = exit_codes.OUTPUT_FAILED, False
    try:
        try:
            code = cli.main(prog_name="bzzz", standalone_mode=False) or 0
        except click.ClickException as error:
            code = error.exit_code
            is_reported = True
            error.show()
        except (click.Abort, KeyboardInterrupt):
            code = exit_codes.INTERRUPTED
        except BaseExceptionGroup as group:  # of the nurseries of a simulation
            if group.subgroup(KeyboardInterrupt) is None:
                raise
            code = exit_codes.INTERRUPTED
        sys.stdout.flush()
    except OutputFailed:
        pass
    if (failure := streams.output_failure()) is None:  # also when a command went on, as a simulation does
        return code
    if not (failure.is_reader_gone or is_reported):
        click.echo(f"bzzz: standard output cannot be written ({failure})", err=True)
    return code or exit_codes.OUTPUT_FAILED


if __name__ == "__main__":
    main()
