"""`bzzz get` and `history`."""

import json

import pytest

from tests.unit.node.commands.running import ADDRESS, bzzz, json_of, put, stand_in


def test_siblings_are_reported_on_standard_error(api: str) -> None:
    one = put(b"1")
    put(b"2", "--parent", one["digest"])
    put(b"3", "--parent", one["digest"])
    result = bzzz("get", ADDRESS)
    assert result.stdout_bytes == b"3"
    assert "another version was written concurrently with this one" in result.stderr


def test_a_version_can_be_named_by_its_digest_and_by_its_time(api: str) -> None:
    one = put(b"1")
    put(b"2")
    assert bzzz("get", ADDRESS, "--digest", one["digest"]).stdout_bytes == b"1"
    assert bzzz("get", "ucxl://agent:role@project:task/~~1/notes/a.md").stdout_bytes == b"1"


def test_content_is_printed_by_its_cid(api: str) -> None:
    cid = put(b"1")["cid"]
    put(b"2")
    assert bzzz("get", "--cid", cid).stdout_bytes == b"1"
    assert json_of("get", "--cid", cid)["content"] == "1"
    missing = bzzz("get", "--cid", "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku")
    assert missing.exit_code == 6
    assert "no other node was asked" in missing.stderr
    wrong = bzzz("get", "--cid", "Qm/../../x?y#z")
    assert wrong.exit_code == 2
    assert "no CID" in wrong.stderr


def test_an_address_and_a_cid_are_not_named_together(api: str) -> None:
    for arguments in ((), ("--cid", "x", ADDRESS), ("--cid", "x", "--digest", "d")):
        result = bzzz("get", *arguments)
        assert result.exit_code == 2
        assert "--cid" in result.stderr


def test_what_was_deleted_is_not_found_and_its_history_is_listed(api: str) -> None:
    put(b"12345")
    assert bzzz("delete", ADDRESS).exit_code == 0
    gone = bzzz("get", ADDRESS)
    assert gone.exit_code == 6
    assert gone.stdout == ""
    assert "deleted" in gone.stderr
    history = bzzz("history", ADDRESS)
    assert "5 bytes" in history.stdout
    assert "*2" in history.stdout
    assert len(json_of("history", ADDRESS)["versions"]) == 2
    first = bzzz("history", ADDRESS, "--limit", "1")
    assert "1 more; --after 1" in first.stderr


def test_what_is_not_there_has_an_exit_code_of_its_own_in_words_and_in_json(api: str) -> None:
    result = bzzz("get", ADDRESS)
    assert result.exit_code == 6
    assert result.stderr.startswith("bzzz: nothing is known at")
    assert "Traceback" not in result.output
    as_json = bzzz("get", ADDRESS, "--json")
    assert as_json.exit_code == 6
    assert json.loads(as_json.stdout)["error"]["code"] == "UCXL-404-NOT_FOUND"
    assert bzzz("history", ADDRESS).exit_code == 6


def test_an_answer_from_this_node_alone_is_reported_on_standard_error() -> None:
    headers = {"UCXL-Degraded": "true", "UCXL-Age-Ms": "90000", "UCXL-Reason": "nobody answered", "UCXL-Siblings": "2"}
    with stand_in(200, b"content", headers) as where:
        result = bzzz("get", ADDRESS, "--api", where)
    assert result.stdout_bytes == b"content"
    assert "from this node alone, last reconciled 90.0 s ago: nobody answered" in result.stderr
    assert "2 other versions were" in result.stderr


def test_an_answer_of_the_swarm_that_is_marked_is_reported_as_one() -> None:
    why = "a later version by ada is known and its content is not"
    headers = {"UCXL-Degraded": "true", "UCXL-Source": "swarm", "UCXL-Reason": why}
    with stand_in(200, b"content", headers) as where:
        result = bzzz("get", ADDRESS, "--api", where)
    assert result.stdout_bytes == b"content"
    assert f"from the swarm: {why}" in result.stderr


def test_a_history_says_that_the_newest_version_has_no_content_here() -> None:
    version = {
        "written_at": "2026-01-01T00:00:00.000Z", "author": "a" * 52, "deleted": False, "reissued_as": None,
        "size_bytes": 5,
    }  # fmt: skip
    versions = [
        {**version, "digest": "1" * 64, "held": True, "head": False},
        {**version, "digest": "2" * 64, "held": False, "head": True},
    ]
    body = {"response": {"data": {"versions": versions, "total": 2, "complete": True, "missing": []}, "message": "ok"}}
    with stand_in(200, body) as where:
        result = bzzz("history", ADDRESS, "--api", where)
    assert "1 newest version is held elsewhere or by nobody" in result.stderr


@pytest.mark.parametrize("reason", ["answered from this machine: no other member of the swarm is known yet", ""])
def test_a_history_that_may_lack_versions_says_why(reason: str) -> None:
    data = {"versions": [], "total": 0, "complete": False, "missing": [], "provenance": {"reason": reason}}
    with stand_in(200, {"response": {"data": data, "message": "ok"}}) as where:
        result = bzzz("history", ADDRESS, "--api", where)
    assert f"there may be more versions: {reason or 'not every holder answered'}" in result.stderr
