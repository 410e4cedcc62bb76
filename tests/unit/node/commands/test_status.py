"""`bzzz id`, `peers`, `health` and `pending` on a node that is well."""

from tests.unit.node.commands.running import ADDRESS, bzzz, json_of, stand_in


def test_id_shows_the_name_and_the_state_of_the_node(api: str) -> None:
    who = json_of("id")
    assert who["peer_id"] in bzzz("id").stdout
    assert json_of("peers") == {"peers": [], "total": 0}
    assert "--bootstrap" in bzzz("peers").stdout
    assert json_of("health")["status"] == "healthy"
    assert bzzz("health").stdout.startswith("healthy")
    assert "dht" in bzzz("health").stdout
    assert json_of("pending") == {"count": 0, "oldest_age_ms": None, "refused": 0}
    assert json_of("pending", "--refused")["hints"] == []
    assert "0 to be delivered" in bzzz("pending").stdout


def test_peers_are_listed_with_all_that_is_known_of_them() -> None:
    here = {
        "peer_id": "12D3KooWpeer", "name": "n2", "state": "suspect", "member": True, "last_seen": None, "owed": 3,
        "multiaddrs": ["/ip4/10.0.0.2/tcp/4001/p2p/12D3KooWpeer", "/ip4/10.0.0.3/tcp/4001/p2p/12D3KooWpeer"],
        "sources": [{"source": "hello", "age_ms": 4}, {"source": "mdns", "age_ms": 9000}], "agent": "bzzz/0.1.0",
        "clock_offset_ms": -1500.0, "round_trip_ms": 1.04, "capabilities": ["role:planner"], "last_error": "no answer",
    }  # fmt: skip
    bare = {
        "peer_id": None, "name": "", "state": "known", "member": False, "last_seen": None, "owed": 0,
        "multiaddrs": ["/ip4/10.0.0.9/tcp/4001"], "sources": [{"source": "configuration", "age_ms": 1}], "agent": "",
        "clock_offset_ms": None, "round_trip_ms": None, "capabilities": [], "last_error": "connection \x1b refused",
    }  # fmt: skip
    with stand_in(200, {"response": {"message": "ok", "data": {"peers": [here, bare], "total": 2}}}) as where:
        done = bzzz("peers", "--api", where)
    _, first, second, *errors = (line.split("  ") for line in done.stdout.splitlines())
    assert [cell.strip() for cell in first if cell.strip()] == [
        "n2", "suspect", "never", "3", "1.0 ms", "-1.500 s", "hello, mdns", "bzzz/0.1.0", "role:planner",
        "12D3KooWpeer", "/ip4/10.0.0.2/tcp/4001 and 1 more",
    ]  # fmt: skip
    assert [cell.strip() for cell in second if cell.strip()] == [
        "-", "known", "never", "0", "-", "-", "configuration", "-", "-", "-", "/ip4/10.0.0.9/tcp/4001",
    ]  # fmt: skip
    assert errors == [["n2: no answer"], ["/ip4/10.0.0.9/tcp/4001: connection \\x1b refused"]]


def test_hints_are_listed_in_words() -> None:
    hint = {
        "holder": "12D3KooWpeer", "address": ADDRESS, "digest": "", "sequence": 1, "attempts": 4, "next_try": None,
        "refusal": "too far ahead", "refused": True, "age_ms": 7_200_000,
    }  # fmt: skip
    data = {"count": 0, "oldest_age_ms": 5000, "refused": 1, "hints": [hint]}
    with stand_in(200, {"response": {"message": "ok", "data": data}}) as where:
        found = bzzz("pending", "--refused", "--api", where).stdout
        assert "the oldest for 5.0 s; 1 refused for good" in found
        assert "too far ahead" in found
