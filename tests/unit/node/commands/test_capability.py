"""`bzzz capability` and `bzzz services`, against a node in memory."""

import pytest

from tests.unit.node.commands.running import bzzz, json_of, stand_in


def listed() -> list[str]:
    found: list[str] = json_of("capability", "list")["capabilities"]
    return found


def test_capabilities_are_added_replaced_removed_and_unset(api: str) -> None:
    assert "offers nothing" in bzzz("capability", "list").stdout
    done = bzzz("capability", "set", "role:planner", "service:embed=http://192.0.2.7:9000", "--reason", "new")
    assert (done.exit_code, done.stdout) == (0, "role:planner\nservice:embed=http://192.0.2.7:9000\n")
    bzzz("capability", "set", "service:embed=http://192.0.2.8:9000", "model:llama3@70b", "model:llama3@8b")
    assert listed() == [
        "model:llama3@70b", "model:llama3@8b", "role:planner", "service:embed=http://192.0.2.8:9000"
    ]  # fmt: skip
    assert bzzz("capability", "remove", "model:llama3", "planner").exit_code == 0
    assert listed() == ["service:embed=http://192.0.2.8:9000"]
    assert bzzz("capability", "unset").exit_code == 0
    assert listed() == []
    assert "capabilities: role:planner, service:embed=http://192.0.2.7:9000 (new)" in bzzz("audit", "show").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (("set", "planner"), 2, "role:"),
        (("set", "label:a=\x1b[2J"), 2, "printable"),
        (("set", *[f"role:r{number}" for number in range(65)]), 2, "64 are the most"),
        (("remove", "role:planner"), 6, "does not offer 'role:planner'"),
        (("set",), 2, "CAPABILITY"),
    ],
)
def test_a_wrong_change_says_why(api: str, arguments: tuple[str, ...], code: int, part: str) -> None:
    done = bzzz("capability", *arguments)
    assert (done.exit_code, done.stdout) == (code, "")
    assert part in done.stderr
    assert listed() == []


def test_services_are_listed_and_filtered(api: str) -> None:
    assert bzzz("services").stdout == "no node offers anything\n"
    bzzz("capability", "set", "role:planner", "model:llama3@70b")
    rows = bzzz("services").stdout.splitlines()
    assert rows[0].split() == ["CAPABILITY", "NODE", "STATE", "PEER"]
    assert [row.split()[:4] for row in rows[1:]] == [
        ["model:llama3@70b", "n1", "this", "node"],
        ["role:planner", "n1", "this", "node"],
    ]
    assert len(bzzz("services", "llama3").stdout.splitlines()) == 2
    assert "no node that is known here offers that" in bzzz("services", "llama3", "--peer", "n9").stdout


def test_what_other_nodes_say_cannot_control_the_terminal() -> None:
    node = {"peer_id": "12D3KooWeve", "name": "eve", "multiaddrs": [], "connected": False, "idle": False, "own": False}
    offer = {"capability": "label:x=\x1b[2J", "kind": "label", "name": "x", "value": "\x1b[2J", "node": node}
    with stand_in(200, {"response": {"message": "ok", "data": {"services": [offer], "total": 5}}}) as where:
        done = bzzz("services", "--api", where)
        assert "\x1b" not in done.stdout
        assert "away" in done.stdout
        assert "5 are offered; the first 1 are shown" in done.stderr
        assert "\x1b" not in bzzz("services", "--json", "--api", where).stdout


def test_a_change_that_another_one_came_before_is_made_again_and_then_given_up() -> None:
    error = {"error": {"code": "UCXL-409-CONFLICT", "message": "read them again", "retryable": False}}
    both = {**error, "response": {"message": "ok", "data": {"capabilities": [], "revision": "0"}}}
    with stand_in(200, both) as where:
        assert bzzz("capability", "set", "role:x", "--api", where).exit_code == 0
    with stand_in(409, both) as where:
        assert bzzz("capability", "set", "role:x", "--api", where).exit_code == 8
