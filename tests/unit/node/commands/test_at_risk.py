"""`bzzz at-risk`."""

from tests.unit.node.commands.running import bzzz, json_of, stand_in

NOTHING = {
    "addresses": 0, "by_missing": {}, "oldest_age_ms": None, "oldest_address": "", "complete": True, "replaced": [],
    "held": "",
}  # fmt: skip


def test_a_node_without_anything_at_risk_says_so(api: str) -> None:
    assert bzzz("at-risk").stdout == "0 addresses have fewer replicas than wanted\n"
    assert json_of("at-risk") == NOTHING


def test_what_is_at_risk_and_who_is_gone_are_shown() -> None:
    data = NOTHING | {
        "addresses": 3, "by_missing": {"1": 2, "4": 1}, "oldest_age_ms": 65_000, "oldest_address": "ucxl://a:b@c:d/*^/x",
        "complete": False, "replaced": [{"peer_id": "12D3KooWBob", "name": "bob"}], "held": "5 of the 8 are away",
    }  # fmt: skip
    with stand_in(200, {"response": {"message": "ok", "data": data}}) as where:
        assert bzzz("at-risk", "--api", where).stdout.splitlines() == [
            "at least 3 addresses have fewer replicas than wanted",
            "the oldest for 65.0 s: ucxl://a:b@c:d/*^/x",
            "MISSING  ADDRESSES",
            "1        2",
            "4        1",
            "bob (12D3KooWBob) is gone: other nodes hold in its place",
            "5 of the 8 are away",
        ]
    with stand_in(200, {"response": {"message": "ok", "data": data | {"addresses": 1, "complete": True}}}) as where:
        assert bzzz("at-risk", "--api", where).stdout.startswith("1 address has fewer replicas than wanted\n")
