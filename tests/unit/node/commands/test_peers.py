"""`bzzz peers forget`; `bzzz peers` itself is tested in test_status.py."""

import json
from collections.abc import Mapping
from types import SimpleNamespace
from typing import ClassVar, cast

from node.commands.client import ApiClient
from node.commands.peers import all_peers
from tests.unit.node.commands.running import bzzz, stand_in

PEER = {
    "peer_id": "12D3KooWpeer", "name": "n2", "state": "known", "member": True, "multiaddrs": [],
    "last_seen": "2026-01-01T00:00:00.000Z", "owed": 3, "clock_offset_ms": None, "round_trip_ms": None,
}  # fmt: skip
MESSAGE = "n2 is forgotten; 3 versions that it did not have go to the members that hold in its place"


def answer(*peers: dict[str, object]) -> dict[str, object]:
    data = {"peers": list(peers), "total": len(peers), "forgotten": PEER, "owed": 3}
    return {"response": {"message": MESSAGE, "data": data}}


def test_hints_for_a_node_are_shown_before_it_is_forgotten() -> None:
    with stand_in(200, answer(PEER)) as where:
        for name in ("n2", "12D3KooWpeer"):
            done = bzzz("peers", "forget", name, "--yes", "--api", where)
            assert done.exit_code == 0
            assert "last seen 2026-01-01T00:00:00.000Z; it does not have 3 of this node's writes" in done.stderr
            assert done.stdout == f"{MESSAGE}\n"
        found = json.loads(bzzz("peers", "forget", "n2", "--yes", "--json", "--api", where).stdout)
        assert found["owed"] == 3


def test_nodes_are_fetched_page_by_page_and_each_is_listed_once() -> None:
    class Pages:
        """A node with 1,203 others, one of which has moved from the second page to the third."""

        asked: ClassVar[list[tuple[int, int]]] = []

        def call(self, method: str, path: str, query: Mapping[str, str]) -> SimpleNamespace:
            after, limit = int(query["after"]), int(query["limit"])
            self.asked.append((after, limit))
            numbers = range(after, min(after + limit, 1203))
            peers = [{"peer_id": f"p{0 if number == 1200 else number}", "multiaddrs": []} for number in numbers]
            return SimpleNamespace(data={"peers": peers, "total": 1203})

    found = all_peers(cast(ApiClient, Pages()))
    assert [peer["peer_id"] for peer in found] == [f"p{number}" for number in range(1203) if number != 1200]
    assert [after for after, _ in Pages.asked] == [0, 500, 1000]


def test_without_a_terminal_and_without_yes_nothing_is_forgotten() -> None:
    with stand_in(200, answer(PEER)) as where:
        done = bzzz("peers", "forget", "n2", "--api", where)
        assert done.exit_code == 2
        assert "3 of this node's writes" in done.stderr
        assert "--yes" in done.stderr
        assert not done.stdout


def test_a_node_must_be_named_without_doubt(api: str) -> None:
    done = bzzz("peers", "forget", "n9", "--yes")
    assert done.exit_code == 6
    assert "knows no node 'n9'" in done.stderr
    with stand_in(200, answer(PEER, {**PEER, "peer_id": "12D3KooWother"})) as where:
        done = bzzz("peers", "forget", "n2", "--yes", "--api", where)
        assert done.exit_code == 2
        assert "12D3KooWother" in done.stderr


def test_the_audit_log_names_the_node_that_was_forgotten() -> None:
    details = {"peer": "12D3KooWpeer", "name": "n2", "owed": 3}
    entry = {"at_ms": 0, "act": "member.forgotten", "author": "ada", "reason": "broken", "details": details}
    with stand_in(200, {"response": {"message": "ok", "data": {"lines": [json.dumps(entry)]}}}) as where:
        assert "ada  n2, which did not have 3 writes (broken)" in bzzz("audit", "show", "--api", where).stdout
