"""The client of the API: tokens, nodes that cannot be reached, and errors in answer."""

import socket
from pathlib import Path

import pytest

from protocols import errors
from tests.unit.node.commands.running import ADDRESS, TOKEN, bzzz, put, served, stand_in


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
    assert result.exit_code == 7
    assert result.stderr == "bzzz: the swarm did not answer (try again in 7 s)\n"


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.InvalidAddress, 9), (errors.InvalidTemporal, 9), (errors.InvalidPayload, 1), (errors.TooLarge, 1),
        (errors.Unauthenticated, 1), (errors.NotFound, 6), (errors.Deleted, 6), (errors.OutOfRange, 6),
        (errors.Conflict, 8), (errors.Rejected, 1), (errors.ClockAhead, 7), (errors.TooManyRequests, 7),
        (errors.Internal, 1), (errors.Unavailable, 7), (errors.Indeterminate, 7), (errors.StorageFull, 7),
    ],
)  # fmt: skip
def test_what_a_caller_does_next_has_an_exit_code_of_its_own(kind: type[errors.BzzzError], code: int) -> None:
    error = {"code": kind.code, "message": "no", "details": {}, "retryable": kind.retryable}
    with stand_in(kind("").status, {"error": error}) as where:
        for options in ((), ("--json",)):
            assert bzzz("get", ADDRESS, "--api", where, *options).exit_code == code


def test_a_node_says_bad_addresses_absences_and_conflicts_apart(api: str) -> None:
    for address in ("nonsense", "ucxl://agent:role@project:task/~~x/notes/a.md", "ucxl://*:*@*:*/*^/a"):
        assert bzzz("get", address).exit_code == 9
        assert bzzz("put", address, "-", stdin=b"x").exit_code == 9
    assert bzzz("get", ADDRESS).exit_code == 6
    put(b"1")
    assert bzzz("get", ADDRESS.replace("*^", "~~7")).exit_code == 6
    assert bzzz("put", ADDRESS, "-", "--create", stdin=b"2").exit_code == 8
    assert bzzz("put", ADDRESS, "-", "--if-match", "00" * 32, stdin=b"2").exit_code == 8
    put(b"1", "--idempotency-key", "k")
    assert bzzz("put", ADDRESS, "-", "--idempotency-key", "k", stdin=b"2").exit_code == 8
