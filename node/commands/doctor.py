"""`bzzz doctor`: what keeps this node from others, or from one of them, in words."""

import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from node.commands import exit_codes
from node.commands.client import ApiClient, Failure
from node.commands.health import health_report
from node.commands.options import complete_files, config_option, talks_to_node
from node.commands.output import print_json, print_line
from node.commands.peers import all_peers
from node.config import values
from node.diagnosis.finding import Finding, bad, is_well, note, ok

if TYPE_CHECKING:
    from node.config.settings import Settings

_SWARM = "/ip4/192.0.2.7/tcp/4001"
ADDRESSES_MAX = 8
"""Addresses of a peer that are tried."""


@click.command("doctor", short_help="Say what keeps this node from others.")
@click.argument("peer", required=False)
@config_option
@click.option(
    "--join-file",
    metavar="FILE",
    shell_complete=complete_files,
    help="A file with the join phrase of the node's private network (or set BZZZ_JOIN): handshakes need its key.",
)
@talks_to_node
def doctor_command(
    *, client: ApiClient, as_json: bool, peer: str | None, config: str | None, join_file: str | None
) -> None:
    """Say what keeps this node from others: addresses, multicast, ports, clocks, programs, peers that are away and why.

    With PEER (a peer id, a name, a multiaddr, or HOST:PORT of a node's API): which hop of the way to it fails. Where no
    node runs, the machine is looked at with the settings that one would start with.

    The exit code is 0 only when nothing is wrong.
    """
    running, findings = _running(client)
    settings, wrong = _settings(config, join_file)
    findings += wrong
    is_private = running is not None and running.node["private"]
    tries = _Handshakes(network_key=settings.network_key if settings else None, is_private=is_private)
    if peer is not None:
        findings = [*findings, *_way(peer, running, tries)]
    elif running is not None:
        from node.diagnosis import running as diagnosis

        findings += diagnosis.findings(
            node=running.node,
            peers=running.peers,
            finders=running.finders,
            flags=client.call("GET", "/v1/flags").data["flags"],
            health=health_report(client)[0],
        )
        findings += _ports(running.node["multiaddrs"], tries)
    elif settings is not None:
        from node.diagnosis import machine

        findings += machine.findings(settings)
    if as_json:
        print_json({"well": is_well(findings), "findings": [finding.as_dict() for finding in findings]})
    else:
        for finding in findings:
            print_line(f"{finding.level.value:<4}  {finding.subject:<9}  {finding.text}")
            if finding.advice:
                print_line(f"{'':<17}  -> {finding.advice}")
    click.get_current_context().exit(0 if is_well(findings) else exit_codes.FAILED)


@dataclass(frozen=True, slots=True)
class _Running:
    """What a running node says of itself."""

    node: dict[str, Any]
    peers: list[dict[str, Any]]
    finders: list[dict[str, Any]]


def _running(client: ApiClient) -> tuple[_Running | None, list[Finding]]:
    """The running node; or None and why it cannot be asked. Raises `Failure` for a wrong token."""
    try:
        node = client.call("GET", "/v1/node").data
    except Failure as failure:
        if failure.exit_code != exit_codes.UNREACHABLE:
            raise
        return None, [bad("node", failure.message)]
    return _Running(node, all_peers(client), client.call("GET", "/v1/discovery").data["finders"]), []


def _ports(addresses: list[str], tries: "_Handshakes") -> list[Finding]:
    """Whether the running node answers at its own addresses, from this machine."""
    ends = [(address, tries.hops(address)[-1]) for address in addresses[:ADDRESSES_MAX]]
    wrong = [bad("ports", f"{address}: {end.text}", end.advice) for address, end in ends if not is_well([end])]
    if ends and not wrong:
        text = f"it answers at all of its {len(ends)} addresses, from this machine"
        return [ok("ports", f"{text}; from another one 'bzzz doctor PEER' tries that")]
    return wrong


def _settings(config: str | None, join_file: str | None) -> tuple["Settings | None", list[Finding]]:
    """The settings that a node would start with here; or None and what is wrong with them."""
    from node.config.file import ConfigError
    from node.config.load import load

    try:
        return load({"config": config, "join_file": join_file}), []
    except ConfigError as error:
        return None, [bad("settings", str(error))]


# -- the way to one peer ----------------------------------------------------------------------------------------------


def _way(peer: str, running: _Running | None, tries: "_Handshakes") -> list[Finding]:
    """The hops to a peer, by each of its addresses, and what the running node has to say of it."""
    addresses, findings = _addresses(peer, running)
    for address in addresses[:ADDRESSES_MAX]:
        findings += [note("way", address), *tries.hops(address)]
    ids = {address.rpartition("/p2p/")[2] for address in addresses if "/p2p/" in address}
    named = {peer, *ids} - {""}
    if running is not None:
        findings += [_as_seen(each) for each in running.peers if named & {each["peer_id"], each["name"]}]
    return findings


@dataclass(frozen=True, slots=True, kw_only=True)
class _Handshakes:
    """What this command knows of the network for handshakes: its key, and whether it has one."""

    network_key: bytes | None
    is_private: bool

    def hops(self, address: str) -> list[Finding]:
        """The hops of the way to a multiaddr."""
        import trio

        from node.diagnosis.way import walk  # imported late: it imports libp2p

        lacks_key = self.is_private and self.network_key is None
        logging.disable(logging.ERROR)  # what libp2p logs of a failed handshake is in the findings
        try:
            return trio.run(partial(walk, address, network_key=self.network_key, lacks_key=lacks_key))
        finally:
            logging.disable(logging.NOTSET)


def _addresses(peer: str, running: _Running | None) -> tuple[list[str], list[Finding]]:
    """Where a peer may be, and what was found out on the way to know."""
    if peer.startswith("/"):
        return [peer], []
    known = [each for each in (running.peers if running else []) if peer in (each["peer_id"], each["name"])]
    if known:
        return list(dict.fromkeys(address for each in known for address in each["multiaddrs"])), []
    try:
        api = values.host_port(peer)
    except ValueError:
        what = "no node runs here that could know it" if running is None else "'bzzz peers' lists those that are known"
        return [], [bad("peer", f"nothing is known of {peer!r}: {what}", "give a multiaddr, or HOST:PORT of its API")]
    try:
        there = ApiClient(api, None).call("GET", "/v1/bootstrap").data
    except Failure as failure:
        why = failure.message.removeprefix(f"no node at {api}: ").partition(". Start one")[0]
        return [], [
            bad(
                "api",
                f"the API of {peer} cannot be asked: {why}",
                f"give a multiaddr of the swarm instead, like {_SWARM}",
            )
        ]
    network, other = running.node["network"] if running else there["network"], there["network"]
    found = ok("api", f"{peer} is the node {there['peer_id']} of the swarm {other!r}")
    if network != other:
        found = bad("api", f"{peer} is of the swarm {other!r}, and this node of {network!r}", "name both alike")
    return list(there["multiaddrs"]), [found]


def _as_seen(peer: dict[str, Any]) -> Finding:
    who = f"{peer['name'] or peer['peer_id']}"
    if peer["state"] == "connected":
        return ok("member", f"{who} is connected, and runs {peer['agent'] or 'a program without a name'}")
    if peer["state"] == "idle":
        return ok("member", f"{who} is not connected, because it need not be; it is dialled when it is wanted")
    why = peer["last_error"] or "not tried yet"
    return bad("member", f"{who} is {peer['state']} for this node: {why}")
