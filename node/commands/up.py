"""`bzzz up`: run a node. The one command that imports what a node is made of, and only when it is called."""

import json
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from node.config.settings import Settings
    from node.process.run import Ready


@click.command("up")
@click.option("--config", metavar="FILE", help="Settings as YAML, under 'bzzz:' (BZZZ_CONFIG).")
@click.option(
    "--profile",
    metavar="NAME",
    help="Settings that ship with BZZZ, under those of FILE: development, hybrid, integration, production or staging "
    "(BZZZ_PROFILE).",
)
@click.option("--data-dir", metavar="DIR", help="Where the identity and the store are.  [default: ~/.bzzz]")
@click.option(
    "--listen",
    multiple=True,
    metavar="MULTIADDR",
    help="Where other nodes reach this one; repeatable.  [default: /ip4/127.0.0.1/tcp/4001]",
)
@click.option(
    "--api", metavar="HOST:PORT", help="Where the HTTP API is; port 0 is any free one.  [default: 127.0.0.1:8080]"
)
@click.option("--api-token-file", metavar="FILE", help="The API's bearer token (BZZZ_API_TOKEN); a must off loopback.")
@click.option(
    "--bootstrap",
    multiple=True,
    metavar="NODE",
    help="A node of the swarm to begin with, by its multiaddr or by the HOST:PORT of its API; repeatable.",
)
@click.option(
    "--backend",
    metavar="mock|real|hybrid",
    help="This machine alone, the swarm or an error, or both.  [default: hybrid]",
)
@click.option("--name", metavar="NAME", help="What this node is called.  [default: the machine's name]")
@click.option("--network", metavar="NAME", help="Which swarm it belongs to.  [default: bzzz]")
@click.option(
    "--open",
    "open_",
    is_flag=True,
    default=None,
    help="Anyone who reaches it may join: needed to listen off loopback, and then the default does.",
)
@click.option(
    "--no-mdns",
    is_flag=True,
    default=None,
    help="Do not look for nodes on the local network. No node does so yet: they are found by --bootstrap, and "
    "from one another.",
)
@click.option("--log-format", metavar="text|json", help="How the log on standard error is written.  [default: text]")
@click.option("--json", "as_json", is_flag=True, help="Say that it is ready as one line of JSON.")
def up_command(*, as_json: bool, open_: bool | None, no_mdns: bool | None, **flags: Any) -> None:
    """Run a node until Ctrl-C.

    Each option may also be set in the environment (BZZZ_DATA_DIR, BZZZ_LISTEN, ...) or in a file; 'bzzz config show'
    says what holds, and who set it. What is marked as a flag in config/hybrid.yaml also changes while the node runs: by
    'bzzz flags set', or by an edit of the file, which is read again within two seconds, or at once on SIGHUP.
    """  # fmt: skip
    from node.config.file import ConfigError
    from node.config.load import load

    def again() -> "Settings":
        return load({**flags, "open": open_, "mdns": False if no_mdns else None})

    try:
        settings = again()
    except ConfigError as error:
        raise _NotUp(str(error), 2) from None
    for note in settings.notes:
        click.echo(f"bzzz: {note}", err=True)

    from node.process.run import NodeFailed, NotStarted, run

    try:
        run(settings, _say_json if as_json else _say, again)
    except NotStarted as error:
        raise _NotUp(str(error), 2) from None
    except NodeFailed as error:
        raise _NotUp(str(error), 1) from None


class _NotUp(click.ClickException):
    """One line on standard error, whatever else was asked for: standard output is for the ready line alone."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = code  # type: ignore[misc]

    def show(self, file: Any = None) -> None:
        click.echo(f"bzzz: {self.message}", err=True)


def _say_json(ready: "Ready") -> None:
    _print(json.dumps({"event": "ready", "peer_id": ready.peer_id, "multiaddrs": ready.multiaddrs, "api": ready.api}))


def _say(ready: "Ready") -> None:
    swarm = "".join(f"\n  swarm    {address}" for address in ready.multiaddrs)
    _print(f"ready: {ready.name} ({ready.backend})\n  peer id  {ready.peer_id}{swarm}\n  api      {ready.api}")


def _print(text: str) -> None:
    """To standard output at once; that nobody reads it is no reason to end."""
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except OSError:
        pass
