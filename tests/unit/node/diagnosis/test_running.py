"""What is wrong with a running node, from the answers of its API."""

from typing import Any

import pytest

from node.diagnosis import running
from node.diagnosis.finding import Finding, Level, is_well

NODE: dict[str, Any] = {
    "name": "ada", "backend": "hybrid", "peer_id": "12D3KooWada", "network": "bzzz",
    "private": False,
    "multiaddrs": ["/ip4/10.0.0.1/tcp/4001/p2p/12D3KooWada", "/ip4/127.0.0.1/tcp/4001/p2p/12D3KooWada"],
}  # fmt: skip
COUNTS = {"questions": 3, "heard": 5, "own_heard": 2, "dropped_own_id": 0, "dropped_share": 0}
MDNS = {"kind": "mdns", "on": True, "sources": 0, "interfaces": ["eth0"], "faults": [], "counts": COUNTS}
HEALTHY: dict[str, Any] = {"components": [{"component": "dht", "status": "healthy", "reasons": []}]}
FLAGS: dict[str, Any] = {"backend": "hybrid", "discovery_mdns": True, "discovery_api": True}


def peer(name: str = "bob", **facts: Any) -> dict[str, Any]:
    return {
        "peer_id": f"12D3KooW{name}", "name": name, "state": "connected", "member": True, "connected": True,
        "sources": [{"source": "hello", "age_ms": 1}], "multiaddrs": [f"/ip4/10.0.0.2/tcp/4001/p2p/12D3KooW{name}"],
        "clock_offset_ms": 2.0, "agent": "bzzz/0.1.0", "last_error": "", **facts,
    }  # fmt: skip


def findings(
    *peers: dict[str, Any],
    node: dict[str, Any] = NODE,
    mdns: dict[str, Any] = MDNS,
    flags: dict[str, Any] = FLAGS,
    health: Any = HEALTHY,
) -> list[Finding]:
    return running.findings(node=node, peers=peers, finders=[mdns], flags=flags, health=health)


def bad(found: list[Finding]) -> list[Finding]:
    return [finding for finding in found if finding.level is Level.BAD]


def test_a_node_among_its_members_is_well_and_says_what_was_looked_at() -> None:
    found = findings(peer(), peer("eve"))
    assert is_well(found)
    subjects = {finding.subject for finding in found}
    assert subjects == {"node", "network", "addresses", "multicast", "clock", "versions", "members"}
    text = "\n".join(finding.text for finding in found)
    assert "/ip4/10.0.0.1/tcp/4001" in text and "127.0.0.1" not in text
    assert "3 questions sent, 2 own messages came back, 5 of other nodes heard" in text
    assert "2 of 2 members are connected" in text


def test_a_private_network_is_said() -> None:
    assert any("nodes without its key are refused" in each.text for each in findings(node={**NODE, "private": True}))


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"state": "known", "connected": False, "last_error": "nothing listens there"}, "bob at /ip4/10.0.0.2/tcp/4001 cannot be reached: nothing listens there"),  # noqa: E501
        ({"state": "suspect", "last_error": "no pong"}, "does not answer in time: no pong"),
        ({"state": "refused", "connected": False, "last_error": "on the deny list"}, "is refused: on the deny list"),
        ({"member": False, "state": "refused", "last_error": "it is of another swarm", "sources": [{"source": "api", "age_ms": 1}]}, "was configured, and is no member: it is of another swarm"),  # noqa: E501
        ({"clock_offset_ms": 60_000.0}, "clock"),
    ],
)  # fmt: skip
def test_what_keeps_a_peer_away_is_said_with_what_to_do(facts: dict[str, Any], says: str) -> None:
    wrong = bad(findings(peer(**facts)))
    assert len(wrong) == 1
    assert says in wrong[0].text
    assert wrong[0].advice


def test_a_stranger_on_the_lan_is_worth_a_note_and_no_fault() -> None:
    stranger = peer("", member=False, state="known", connected=False, sources=[{"source": "mdns"}])
    found = findings(peer(), stranger)
    assert is_well(found)
    assert any("was seen (by mdns), and is no member: it was not dialled yet" in finding.text for finding in found)


def test_a_multicast_that_fails_is_said_once_although_health_says_it_too() -> None:
    why = "the local network cannot be searched by mDNS: UDP port 5353 is taken"
    health = {"components": [{"component": "discovery", "status": "degraded", "reasons": [why]}]}
    assert [finding.subject for finding in bad(findings(mdns={**MDNS, "faults": [why]}, health=health))] == [
        "multicast"
    ]


def test_dropped_records_are_counted_by_their_reason() -> None:
    found = findings(mdns={**MDNS, "counts": {**COUNTS, "dropped_share": 7}})
    assert is_well(found) and any("dropped: 7 share" in finding.text for finding in found)


def test_another_program_that_says_to_be_this_node_is_wrong() -> None:
    (wrong,) = bad(findings(mdns={**MDNS, "counts": {**COUNTS, "dropped_own_id": 7}}))
    assert wrong.subject == "identity" and "copy of this data directory" in wrong.advice


def test_a_node_on_loopback_and_one_that_searches_no_peer_are_reported() -> None:
    found = findings(
        node={**NODE, "multiaddrs": NODE["multiaddrs"][1:]},
        mdns={**MDNS, "on": False},
        flags={**FLAGS, "discovery_mdns": False},
    )
    text = "\n".join(finding.text for finding in found)
    assert "it listens on loopback alone" in text and "it searches nobody" in text
    assert "the source mdns is switched off" in text and "the source api" not in text
    assert is_well(found)


def test_what_health_says_is_wrong_unless_the_component_is_healthy() -> None:
    health = {
        "components": [
            {"component": "store", "status": "failed", "reasons": ["the disk is full"]},
            {"component": "discovery", "status": "healthy", "reasons": ["alone by choice"]},
        ]
    }
    found = findings(peer(), health=health)
    assert [(wrong.subject, wrong.text) for wrong in bad(found)] == [("store", "the disk is full")]
    assert any(each.level is Level.NOTE and each.text == "alone by choice" for each in found)


def test_of_many_peers_that_are_away_some_are_named_and_the_rest_is_counted() -> None:
    away = [peer(f"n{number}", state="known", connected=False, last_error="gone") for number in range(50)]
    found = findings(*away)
    assert len(bad(found)) == running.PEERS_NAMED_MAX
    assert any("30 more like these" in finding.text for finding in found)
