"""`bzzz up`: runs a node. Only this command imports the parts of a node, and only when it runs."""

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from node.commands.options import complete_directories, complete_files, complete_words, config_option, profile_option
from node.commands.output import print_note

if TYPE_CHECKING:
    from node.config.settings import Settings
    from node.process.run import Ready


@click.command("up", short_help="Run a node until Ctrl-C.")
@config_option
@profile_option
@click.option(
    "--data-dir",
    metavar="DIR",
    shell_complete=complete_directories,
    help="The directory of the node's identity, store and audit log.  [default: ~/.bzzz]",
)
@click.option(
    "--listen",
    multiple=True,
    metavar="MULTIADDR",
    help="An address where other nodes can connect; repeatable.  [default: /ip4/127.0.0.1/tcp/4001]",
)
@click.option(
    "--api", metavar="HOST:PORT", help="The address of the HTTP API; port 0 is any free one.  [default: 127.0.0.1:8080]"
)
@click.option(
    "--api-token-file",
    metavar="FILE",
    shell_complete=complete_files,
    help="A file with the token that the API requires (or set BZZZ_API_TOKEN). Required if --api is not on loopback.",
)
@click.option(
    "--bootstrap",
    multiple=True,
    metavar="NODE",
    help="A node of the swarm to connect to first: its multiaddr, or the HOST:PORT of its API; repeatable.",
)
@click.option(
    "--backend",
    metavar="mock|real|hybrid",
    shell_complete=complete_words("mock", "real", "hybrid"),
    help="mock: this machine only. real: the swarm, or an error. hybrid: the swarm, or else this machine.  "
    "[default: hybrid]",
)
@click.option("--name", metavar="NAME", help="The name of this node.  [default: the name of the machine]")
@click.option("--network", metavar="NAME", help="The name of the swarm that it joins.  [default: bzzz]")
@click.option(
    "--open",
    "open_",
    is_flag=True,
    default=None,
    help="Let every node that can connect join. Required if --listen is not on loopback. Without --listen the node "
    "then listens on all interfaces.",
)
@click.option(
    "--join",
    metavar="PHRASE",
    help="Join a private network, with the phrase that 'bzzz network create' printed. Others on this machine can see "
    "the options of a command: BZZZ_JOIN or --join-file keeps it from them.",
)
@click.option("--join-file", metavar="FILE", shell_complete=complete_files, help="A file with the join phrase.")
@click.option(
    "--network-key-file",
    metavar="FILE",
    shell_complete=complete_files,
    help="The key of a private network as a file, like the swarm.key of other libp2p programs.",
)
@click.option(
    "--announce",
    multiple=True,
    metavar="ADDRESS|NETWORK",
    help="Tell other nodes only these addresses of this machine: an IP address, a network like 192.168.0.0/16, or a "
    "multiaddr as it is; repeatable.  [default: all]",
)
@click.option(
    "--no-announce",
    multiple=True,
    metavar="ADDRESS|NETWORK",
    help="Do not tell other nodes these addresses of this machine; repeatable.",
)
@click.option(
    "--no-mdns",
    is_flag=True,
    default=None,
    help="Do not search the local network for nodes, and do not be found there.",
)
@click.option(
    "--log-format",
    metavar="text|json",
    shell_complete=complete_words("text", "json"),
    help="The format of the log on standard error.  [default: text]",
)
@click.option("--json", "as_json", is_flag=True, help="When the node is ready, print one line of JSON.")
def up_command(*, as_json: bool, open_: bool | None, no_mdns: bool | None, **flags: Any) -> None:
    """Run a node until Ctrl-C.

    Each option can also be set in the environment (BZZZ_DATA_DIR, BZZZ_LISTEN, ...) or in a file. 'bzzz config show'
    prints each setting and where it comes from. The settings that 'bzzz flags' lists can change while the node runs:
    with 'bzzz flags set', or with an edit of the file, which the node reads again within two seconds, or at once on
    SIGHUP. A node that has a terminal ends on SIGHUP, because the terminal was closed.

    Each source of peers has a switch among them: discovery_manual, discovery_api, discovery_store, discovery_mdns,
    discovery_announce, discovery_dht and discovery_exchange (BZZZ_DISCOVERY_API=false, for example).
    """
    from node.config.file import ConfigError
    from node.config.load import load

    def again() -> "Settings":
        return load({**flags, "open": open_, "discovery_mdns": False if no_mdns else None})

    try:
        settings = again()
    except ConfigError as error:
        raise _NotUp(str(error), 2) from None
    for note in settings.notes:
        print_note(note)

    from node.process.run import NodeFailed, NotStarted, run

    try:
        run(settings, _print_ready_json if as_json else _print_ready, again)
    except NotStarted as error:
        raise _NotUp(str(error), 2) from None
    except NodeFailed as error:
        raise _NotUp(str(error), 1) from None


class _NotUp(click.ClickException):
    """Ends the command with one line on standard error; standard output is for the ready line only."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = code  # type: ignore[misc]

    def show(self, file: Any = None) -> None:
        print_note(self.message)


def _print_ready_json(ready: "Ready") -> None:
    _print(json.dumps({"event": "ready", "peer_id": ready.peer_id, "multiaddrs": ready.multiaddrs, "api": ready.api}))


def _print_ready(ready: "Ready") -> None:
    swarm = "".join(f"\n  swarm    {address}" for address in ready.multiaddrs)
    if ready.note:
        swarm += f"\n           {ready.note}"
    _print(f"ready: {ready.name} ({ready.backend})\n  peer id  {ready.peer_id}{swarm}\n  api      {ready.api}")


def _print(text: str) -> None:
    """Print at once. A standard output that takes nothing does not end the node, and is no failure of it."""
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except OSError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
