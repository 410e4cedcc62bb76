"""`bzzz pending`."""

import json

from tests.unit.node.commands.running import bzzz, json_of, stand_in


def test_refused_hints_are_retried_and_the_audit_log_shows_it(api: str) -> None:
    assert bzzz("pending", "retry").stdout == "no hint was refused for good\n"
    assert json_of("pending", "retry", "--reason", "x") == {
        "retried": 0, "count": 0, "oldest_age_ms": None, "refused": 0
    }  # fmt: skip
    assert "hints.retried" not in bzzz("audit", "show").stdout, "a retry of nothing is no act"
    data = {"retried": 3, "count": 3, "oldest_age_ms": 5, "refused": 0}
    with stand_in(200, {"response": {"message": "3 hints are due again", "data": data}}) as where:
        assert bzzz("pending", "retry", "--api", where).stdout == "3 hints are due again\n"
    entry = {"at_ms": 0, "act": "hints.retried", "author": "ada", "reason": "repaired", "details": {"hints": 3}}
    with stand_in(200, {"response": {"message": "ok", "data": {"lines": [json.dumps(entry)]}}}) as where:
        assert "ada  3 refused hints (repaired)" in bzzz("audit", "show", "--api", where).stdout
