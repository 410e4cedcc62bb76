"""`bzzz id`, `peers`, `health` and `pending` on a node that is well."""

from tests.unit.node.commands.running import ADDRESS, bzzz, json_of, stand_in


def test_the_node_says_who_and_how_it_is(api: str) -> None:
    who = json_of("id")
    assert who["peer_id"] in bzzz("id").stdout
    assert json_of("peers") == {"peers": []}
    assert "--bootstrap" in bzzz("peers").stdout
    assert json_of("health")["status"] == "healthy"
    assert bzzz("health").stdout.startswith("healthy")
    assert "dht" in bzzz("health").stdout
    assert json_of("pending") == {"count": 0, "oldest_age_ms": None, "refused": 0}
    assert json_of("pending", "--refused")["hints"] == []
    assert "0 to be delivered" in bzzz("pending").stdout


def test_peers_and_hints_are_listed_in_words() -> None:
    peer = {
        "peer_id": "12D3KooWpeer", "name": "n2", "multiaddrs": ["/ip4/10.0.0.2/tcp/4001/p2p/12D3KooWpeer"],
        "connected": True, "suspect": True, "last_seen": None, "owed": 3, "clock_offset_ms": None, "round_trip_ms": 1.0,
    }  # fmt: skip
    with stand_in(200, {"response": {"message": "ok", "data": {"peers": [peer]}}}) as where:
        line = bzzz("peers", "--api", where).stdout.splitlines()[1].split()
        assert line == ["n2", "suspect", "never", "3", "12D3KooWpeer", "/ip4/10.0.0.2/tcp/4001"]
    hint = {
        "holder": "12D3KooWpeer", "address": ADDRESS, "digest": "", "sequence": 1, "attempts": 4, "next_try": None,
        "refusal": "too far ahead", "refused": True, "age_ms": 7_200_000,
    }  # fmt: skip
    data = {"count": 0, "oldest_age_ms": 5000, "refused": 1, "hints": [hint]}
    with stand_in(200, {"response": {"message": "ok", "data": data}}) as where:
        found = bzzz("pending", "--refused", "--api", where).stdout
        assert "the oldest for 5.0 s; 1 refused for good" in found
        assert "too far ahead" in found
