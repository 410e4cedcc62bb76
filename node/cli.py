"""`bzzz`: the command line. A command's file is imported when the command is asked for, and no earlier.

Exit codes: 0 done, 1 not found or refused, 2 used wrongly (and a node that cannot start), 3 node not reachable,
4 stored but not replicated in time, 130 interrupted.
"""

import importlib
import os
import sys

import click

_COMMANDS = {
    "up": "node.commands.up",
    "put": "node.commands.write",
    "delete": "node.commands.write",
    "get": "node.commands.read",
    "history": "node.commands.read",
    "receipt": "node.commands.write",
    "peers": "node.commands.status",
    "health": "node.commands.health",
    "id": "node.commands.status",
    "pending": "node.commands.status",
    "flags": "node.commands.flags",
    "audit": "node.commands.audit",
    "config": "node.commands.config",
    # The simulator stands above the node, which knows no more of it than this name.
    "sim": "netsim.commands.sim",
}


class _Commands(click.Group):
    """A group whose members are the functions of that name in the files of `_COMMANDS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command = getattr(importlib.import_module(_COMMANDS[cmd_name]), f"{cmd_name}_command")
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], _COMMANDS, n=1)
            ctx.fail(f"there is no command {args[0]!r}" + (f"; did you mean {near[0]}?" if near else ""))
        return super().resolve_command(ctx, args)


def _print_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from importlib.metadata import PackageNotFoundError, version

        try:
            click.echo(f"bzzz {version('bzzz')}")
        except PackageNotFoundError:
            click.echo("bzzz (not installed)")
        ctx.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_print_version, help="Say which.")
def cli() -> None:
    """A store of shared context for agents: each machine runs a node, and together the nodes are the store.

    `bzzz up` runs one. The other commands talk to a node that runs (--api, BZZZ_API; http://127.0.0.1:8080 unless set).
    """


def main() -> None:
    """The entry point."""
    try:
        code = cli.main(standalone_mode=False) or 0
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read us has gone: nothing left to say
        code = 1
    sys.exit(code)


if __name__ == "__main__":
    main()
