"""The client of the API: tokens, nodes that cannot be reached, and errors in answer."""

import socket
from pathlib import Path

import pytest

from tests.unit.node.commands.running import ADDRESS, TOKEN, bzzz, served, stand_in


def test_a_token_comes_from_the_environment_or_a_file_and_is_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(TOKEN) as url:
        refused = bzzz("id", "--api", url)
        assert refused.exit_code == 1
        assert "token" in refused.stderr
        (tmp_path / "token").write_text(f"{TOKEN}\n", encoding="utf-8")
        assert bzzz("id", "--api", url, "--api-token-file", str(tmp_path / "token")).exit_code == 0
        monkeypatch.setenv("BZZZ_API_TOKEN", TOKEN)
        result = bzzz("id", "--api", url)
        assert result.exit_code == 0
        assert TOKEN not in result.output


def test_no_node_is_exit_code_3_and_says_which_and_what_to_do() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{unused.getsockname()[1]}"
        for command in ("id", "peers", "health", "pending"):
            result = bzzz(command, "--api", where)
            assert result.exit_code == 3
            assert f"no node at {where}: nothing listens there" in result.stderr
            assert result.stdout == ""
    assert bzzz("id", "--api", "no-such-host.invalid:1").exit_code == 3


def test_something_that_is_no_node_is_exit_code_3() -> None:
    for status, body in ((500, b"<html>"), (404, b"{}"), (502, b"[]")):
        with stand_in(status, body) as where:
            result = bzzz("id", "--api", where)
            assert result.exit_code == 3
            assert "not a BZZZ node" in result.stderr


def test_a_refusal_that_may_pass_says_when_to_try_again() -> None:
    error = {"code": "UCXL-503-UNAVAILABLE", "message": "the swarm did not answer", "details": {}, "retryable": True}
    with stand_in(503, {"error": error}, {"Retry-After": "7"}) as where:
        result = bzzz("get", ADDRESS, "--api", where)
    assert result.exit_code == 1
    assert result.stderr == "bzzz: the swarm did not answer (try again in 7 s)\n"
