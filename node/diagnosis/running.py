"""The findings about a running node, from what its API says of it. Pure: answers in, findings out."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from node.config.values import is_loopback_multiaddr
from node.diagnosis.finding import Finding, bad, note, ok
from protocols.policy.health import judge_clock

PEERS_NAMED_MAX = 20
"""Peers of one kind that have a line each."""
_BY_OPERATOR = {"configuration", "api"}
_PRIVATE = ", and nodes without its key are refused"
_OTHERS = "nodes of a swarm of another name are not members of it"
_FIRST = {"manual", "api", "mdns"}
"""Finders that find a first peer: the others find more through peers."""
_SWITCH = "discovery_"
"""How the names of the flags begin that switch sources of peers on and off."""
_BOOTSTRAP = "name one node of the swarm: bzzz up --bootstrap /ip4/ADDRESS/tcp/4001"

Data = Mapping[str, Any]


def findings(*, node: Data, peers: Sequence[Data], finders: Sequence[Data], flags: Data, health: Data) -> list[Finding]:
    """`node`, `peers`, `finders`, `flags` and `health` are the data of the answers of those names."""
    every = [
        ok("node", f"{node['name']}: {node['backend']}, peer id {node['peer_id']}"),
        ok("network", f"the swarm is named {node['network']!r}{_PRIVATE if node['private'] else ''}; {_OTHERS}"),
        *_listening(node),
        *_finders(finders),
        *_switches(flags),
        *_clock(peers),
        *_programs(peers),
        *_members([peer for peer in peers if peer["member"]]),
        *_others([peer for peer in peers if not peer["member"]]),
        *_health(health),
    ]
    return list({finding.text: finding for finding in reversed(every)}.values())[::-1]


def _listening(node: Data) -> Iterator[Finding]:
    addresses = node["multiaddrs"]
    beyond = [address for address in addresses if not is_loopback_multiaddr(address)]
    if not addresses:
        yield bad("addresses", "it has no swarm: its backend is mock", "start it with --backend hybrid")
    elif not beyond:
        text = "it listens on loopback alone: no other machine can reach it, and mDNS is off"
        yield note("addresses", text, "start it with --open to be reached by other machines")
    else:
        yield ok("addresses", "others can dial " + ", ".join(address.partition("/p2p/")[0] for address in beyond))


def _finders(finders: Sequence[Data]) -> Iterator[Finding]:
    for finder in finders:
        subject = "multicast" if finder["kind"] == "mdns" else "bootstrap"
        for fault in finder["faults"]:
            advice = (
                "see 'On a LAN' in docs/operations.md"
                if subject == "multicast"
                else "start it, or correct what names it"
            )
            yield bad(subject, fault, advice)
        if finder["kind"] == "mdns" and finder["on"] and not finder["faults"]:
            yield _mdns(finder)
            if copies := finder["counts"]["dropped_own_id"]:
                text = f"another program on this LAN says that it is this node ({copies} messages)"
                yield bad("identity", text, "does a copy of this data directory run elsewhere? end one of them")
    if not any(finder["on"] for finder in finders if finder["kind"] in _FIRST):
        yield note("discovery", "it searches nobody: it waits to be dialled", _BOOTSTRAP)


def _mdns(finder: Data) -> Finding:
    counts = finder["counts"]
    dropped = {
        name.removeprefix("dropped_"): count for name, count in counts.items() if name.startswith("dropped_") and count
    }
    text = (
        f"mDNS on {', '.join(finder['interfaces']) or 'no interface yet'}: {counts['questions']} questions sent, "
        f"{counts['own_heard']} own messages came back, {counts['heard']} of other nodes heard"
    )
    if dropped:
        text += f"; dropped: {', '.join(f'{count} {name}' for name, count in dropped.items())}"
    if counts["heard"]:
        return ok("multicast", text)
    return note("multicast", text, "if there are nodes on this LAN, multicast is blocked between them: " + _BOOTSTRAP)


def _switches(flags: Data) -> Iterator[Finding]:
    for name, is_on in flags.items():
        if name.startswith(_SWITCH) and is_on is False:
            source = name.removeprefix(_SWITCH)
            yield note(
                "discovery", f"the source {source} is switched off: it finds nobody", f"bzzz flags set {name}=true"
            )


def _clock(peers: Sequence[Data]) -> Iterator[Finding]:
    offsets = [peer["clock_offset_ms"] for peer in peers if peer["connected"] and peer["clock_offset_ms"] is not None]
    if wrong := judge_clock(offsets):
        yield bad("clock", wrong, "run a time service (chrony, systemd-timesyncd) on every machine")
    elif offsets:
        most = max(abs(offset) for offset in offsets)
        yield ok("clock", f"within {most / 1000:.3f} s of the clocks of {len(offsets)} members")


def _programs(peers: Sequence[Data]) -> Iterator[Finding]:
    agents = Counter(peer["agent"] for peer in peers if peer["member"] and peer["agent"])
    if agents:
        text = "members run " + ", ".join(f"{agent} ({count})" for agent, count in sorted(agents.items()))
        yield ok("versions", text) if len(agents) == 1 else note("versions", text, "bring all nodes to one release")


def _members(members: Sequence[Data]) -> Iterator[Finding]:
    here = [peer for peer in members if peer["state"] == "connected"]
    idle = [peer for peer in members if peer["state"] == "idle"]
    away = [peer for peer in members if peer["state"] not in ("connected", "idle")]
    if here:
        dialled = f", and {len(idle)} are dialled when they are wanted" if idle else ""
        yield ok("members", f"{len(here)} of {len(members)} members are connected{dialled}")
    for peer in away[:PEERS_NAMED_MAX]:
        state = {"suspect": "does not answer in time", "refused": "is refused"}.get(peer["state"], "cannot be reached")
        yield bad("members", f"{_name(peer)} {state}: {_why(peer)}", f"bzzz doctor {peer['peer_id']}")
    yield from _left_out(away)


def _others(others: Sequence[Data]) -> Iterator[Finding]:
    """Peers that were seen, and are no members."""
    named = [peer for peer in others if _BY_OPERATOR & {source["source"] for source in peer["sources"]}]
    seen = [peer for peer in others if peer not in named]
    for peer in named[:PEERS_NAMED_MAX]:
        text = f"{_name(peer)} was configured, and is no member: {_why(peer)}"
        yield bad("peers", text, f"bzzz doctor {peer['peer_id'] or peer['multiaddrs'][0]}")
    for peer in seen[:PEERS_NAMED_MAX]:
        by = ", ".join(source["source"] for source in peer["sources"]) or "nobody now"
        yield note("peers", f"{_name(peer)} was seen (by {by}), and is no member: {_why(peer)}")
    yield from _left_out(named)
    yield from _left_out(seen)


def _left_out(peers: Sequence[Data]) -> Iterator[Finding]:
    if len(peers) > PEERS_NAMED_MAX:
        yield note("peers", f"{len(peers) - PEERS_NAMED_MAX} more like these; 'bzzz peers' lists them")


def _health(health: Data) -> Iterator[Finding]:
    """What is said of a healthy component is good to know, such as that the node is alone by choice."""
    for component in health["components"]:
        say = note if component["status"] == "healthy" else bad
        for reason in component["reasons"]:
            yield say(component["component"], reason)


def _name(peer: Data) -> str:
    where = (peer["multiaddrs"] or [""])[0].partition("/p2p/")[0]
    return " ".join(filter(None, (peer["name"] or peer["peer_id"] or "", f"at {where}" if where else "")))


def _why(peer: Data) -> str:
    return str(peer["last_error"] or "it was not dialled yet")
