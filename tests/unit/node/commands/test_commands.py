"""The commands that talk to a node: what they send, what they say, and their exit codes.

Most tests speak with a whole node in memory behind a real server on loopback; where a node would have to be in a rare
state, a stand-in answers what such a node answers.
"""

import io
import json
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import click
import pytest
import trio
from click.testing import CliRunner, Result

from node import app
from node.api.listen import bind
from node.api.middleware import ApiAccess, Middleware
from node.api.router import router
from node.api.server import serve
from node.cli import COMMANDS, cli
from node.commands.client import ApiClient, Failure
from node.commands.output import in_words
from node.config.settings import Settings
from node.store.memory.store import MemoryStore
from protocols.keys import PrivateKey

ADDRESS = "ucxl://agent:role@project:task/*^/notes/a.md"
TOKEN = "s3cret"


@contextmanager
def served(token: str | None = None) -> Iterator[str]:
    """A whole node on the mock backend, in a thread of its own, and the address of its API."""
    started: list[tuple[str, trio.lowlevel.TrioToken, trio.Event]] = []
    ready = threading.Event()

    async def live() -> None:
        world = app.Environment(
            key=PrivateKey.from_seed(b"\x01" * 32), network=None, store=MemoryStore(log_id="ab" * 8),
            now_ms=lambda: time.time_ns() // 1_000_000, chance=random.Random(0).random,
        )  # fmt: skip
        async with trio.open_nursery() as nursery:
            node = await nursery.start(app.run, world, Settings(backend="mock", name="n1"))
            middleware = Middleware(router(node), ApiAccess(is_loopback=True, token=token), now_ms=node.now_ms)
            stopping = trio.Event()
            async with trio.open_nursery() as front:
                url = await front.start(lambda task_status: serve(
                    middleware, bind("127.0.0.1:0"), stopping=stopping, now_ms=node.now_ms, task_status=task_status
                ))  # fmt: skip
                started.append((url, trio.lowlevel.current_trio_token(), stopping))
                ready.set()
            nursery.cancel_scope.cancel()

    thread = threading.Thread(target=trio.run, args=(live,), name="node")
    thread.start()
    assert ready.wait(10)
    url, trio_token, stopping = started[0]
    try:
        yield url
    finally:
        trio_token.run_sync_soon(stopping.set)
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BZZZ_API", "BZZZ_API_TOKEN", "BZZZ_API_TOKEN_FILE", "BZZZ_CONFIG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with served() as url:
        monkeypatch.setenv("BZZZ_API", url)
        yield url


def bzzz(*arguments: str, stdin: bytes | None = None) -> Result:
    result = CliRunner().invoke(cli, arguments, input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def json_of(*arguments: str, stdin: bytes | None = None) -> Any:
    """What a command that succeeds answers in JSON: one line."""
    result = bzzz(*arguments, "--json", stdin=stdin)
    assert result.exit_code == 0, result.output
    assert result.stdout.count("\n") == 1
    return json.loads(result.stdout)


def put(content: bytes, *more: str, address: str = ADDRESS) -> Any:
    return json_of("put", address, "-", *more, stdin=content)


# -- put, get, delete -------------------------------------------------------------------------------------------------


def test_what_is_put_from_standard_input_or_a_file_is_got_byte_for_byte(api: str, tmp_path: Path) -> None:
    content = bytes(range(256))
    result = bzzz("put", ADDRESS, stdin=content)
    assert result.exit_code == 0
    assert "stored on this node" in result.stdout
    assert bzzz("get", ADDRESS).stdout_bytes == content
    path = tmp_path / "a.json"
    path.write_bytes(b'{"a": 1}')
    json_of("put", ADDRESS, str(path))
    answer = json_of("get", ADDRESS)
    assert answer["envelope"]["content_type"] == "application/json"
    assert answer["envelope"]["content"] == '{"a": 1}'
    assert answer["provenance"]["source"] == "local"


@pytest.mark.parametrize(
    ("name", "content", "media_type"),
    [
        ("a.txt", b"x", "text/plain; charset=utf-8"),
        ("a.txt", b"\xff", "application/octet-stream"),
        ("a.png", b"\xff", "image/png"),
        ("a.unknown", b"x", "text/plain; charset=utf-8"),
        ("unknown", b"\xff", "application/octet-stream"),
    ],
)
def test_the_media_type_is_guessed_from_the_name_and_the_content(
    api: str, tmp_path: Path, name: str, content: bytes, media_type: str
) -> None:
    (tmp_path / name).write_bytes(content)
    json_of("put", ADDRESS, str(tmp_path / name))
    assert json_of("get", ADDRESS)["envelope"]["content_type"] == media_type
    json_of("put", ADDRESS, str(tmp_path / name), "--type", "x/y")
    assert json_of("get", ADDRESS)["envelope"]["content_type"] == "x/y"


def test_a_receipt_in_words_names_what_is_needed_to_ask_again(api: str) -> None:
    result = bzzz("put", ADDRESS, "-", stdin=b"x")
    digest = json_of("get", ADDRESS)["envelope"]["digest"]
    assert digest in result.stdout
    assert f"--log {'ab' * 8} --sequence 1" in result.stdout
    again = json_of("receipt", digest)
    assert again["sequence"] == 1
    assert json_of("receipt", "--log", again["log"], "--sequence", "1")["digest"] == digest
    assert bzzz("receipt", "00" * 32).exit_code == 1
    assert bzzz("receipt").exit_code == 2
    assert bzzz("receipt", "--log", "x").exit_code == 2


def test_conditions_and_meta_reach_the_node(api: str) -> None:
    one = put(b"1", "--meta", "note=grüße=x", "--idempotency-key", "k")
    assert json_of("get", ADDRESS)["envelope"]["meta"] == {"note": "grüße=x"}
    assert put(b"1", "--idempotency-key", "k")["digest"] == one["digest"]
    two = put(b"2", "--if-match", one["digest"])
    refused = bzzz("put", ADDRESS, "-", "--if-match", one["digest"], stdin=b"3")
    assert refused.exit_code == 1
    assert "If-Match" in refused.stderr
    put(b"3", "--parent", one["digest"])
    three = put(b"4", "--parent", two["digest"], "--parent", one["digest"])
    assert len(three["parents"]) == 2
    put(b"5", "--if-match", "*", address=ADDRESS)
    assert bzzz("put", ADDRESS, "-", "--create", stdin=b"6").exit_code == 1
    assert bzzz("put", ADDRESS, "-", "--meta", "nonsense", stdin=b"6").exit_code == 2


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


def test_the_signed_envelope_can_be_taken_out_and_put_in(api: str) -> None:
    put(b"1")
    encoded = bzzz("get", ADDRESS, "--envelope").stdout_bytes
    again = json_of("put", ADDRESS, "-", "--type", "application/vnd.bzzz.envelope", stdin=encoded)
    assert again["sequence"] == 1


def test_what_was_deleted_is_not_found_and_its_history_is_listed(api: str) -> None:
    put(b"12345")
    assert bzzz("delete", ADDRESS).exit_code == 0
    gone = bzzz("get", ADDRESS)
    assert gone.exit_code == 1
    assert gone.stdout == ""
    assert "deleted" in gone.stderr
    history = bzzz("history", ADDRESS)
    assert "5 bytes" in history.stdout
    assert "*2" in history.stdout
    assert len(json_of("history", ADDRESS)["versions"]) == 2
    first = bzzz("history", ADDRESS, "--limit", "1")
    assert "1 more; --after 1" in first.stderr


def test_what_is_not_there_is_exit_code_1_in_words_and_in_json(api: str) -> None:
    result = bzzz("get", ADDRESS)
    assert result.exit_code == 1
    assert result.stderr.startswith("bzzz: nothing is known at")
    assert "Traceback" not in result.output
    as_json = bzzz("get", ADDRESS, "--json")
    assert as_json.exit_code == 1
    assert json.loads(as_json.stdout)["error"]["code"] == "UCXL-404-NOT_FOUND"
    assert bzzz("history", ADDRESS).exit_code == 1
    assert bzzz("get", "nonsense").exit_code == 1


def test_a_write_not_replicated_in_time_is_exit_code_4_and_its_receipt_is_still_printed(api: str) -> None:
    result = bzzz("put", ADDRESS, "-", "--replicated", stdin=b"x")
    assert result.exit_code == 4
    assert "digest" in result.stdout
    assert "will not be replicated" in result.stderr
    as_json = bzzz("put", ADDRESS, "-", "--replicated", "--timeout", "1s", "--json", stdin=b"x")
    assert as_json.exit_code == 4
    assert json.loads(as_json.stdout)["replicated"] is False


# -- used wrongly -----------------------------------------------------------------------------------------------------


class _Terminal(io.BytesIO):
    """A keyboard at which nobody types."""

    def isatty(self) -> bool:
        return True


def test_nothing_waits_for_a_person_who_did_not_ask_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.commands.write.sys.stdin", _Terminal())
    from node.commands import write

    with pytest.raises(click.UsageError, match="nothing to write"):
        write._read(None)


def test_an_empty_pipe_is_not_taken_for_an_empty_version_unless_that_is_said(api: str) -> None:
    result = bzzz("put", ADDRESS, stdin=b"")
    assert result.exit_code == 2
    assert "standard input is empty" in result.stderr
    assert bzzz("get", ADDRESS).exit_code == 1
    put(b"")
    assert bzzz("get", ADDRESS).stdout_bytes == b""


def test_too_much_content_and_files_that_are_not_there_are_refused_here(tmp_path: Path) -> None:
    big = bzzz("put", ADDRESS, "-", stdin=b"x" * 1_048_577)
    assert big.exit_code == 1
    assert "1048576" in big.stderr
    missing = bzzz("put", ADDRESS, str(tmp_path / "none"))
    assert missing.exit_code == 2
    assert "No such file" in missing.stderr
    assert bzzz("put", ADDRESS, str(tmp_path)).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("gett", ADDRESS), "did you mean get?"),
        (("get",), "Missing argument"),
        (("get", ADDRESS, "--consistency", "strong"), "auto"),
        (("get", ADDRESS, "--timeout", "soon"), "not a duration"),
        (("peers", "--api", "nonsense"), "not host:port"),
        (("peers", "--api", "https://127.0.0.1:1"), "not host:port"),
        (("peers", "--api-token-file", "/nowhere/x"), "cannot be read"),
        (("history", ADDRESS, "--limit", "0"), "--limit"),
        (("delete", ADDRESS, "--meta", "a b=c"), "UCXL-Meta-a b"),
        (("delete", ADDRESS, "--meta", "слово=c"), "no header can carry"),
        (("delete", ADDRESS, "--meta", "a=b\nc"), "line break"),
        (("delete", ADDRESS, "--parent", "a\r\nb"), "line break"),
    ],
)
def test_wrong_use_is_exit_code_2_and_says_what_is_wrong(arguments: tuple[str, ...], part: str) -> None:
    result = bzzz(*arguments)
    assert result.exit_code == 2
    assert part in result.stderr


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--api", "0.0.0.0:0"], ["0.0.0.0:0 is not on loopback", "--api-token-file"]),
        (["--api", "nonsense"], ["--api", "not host:port"]),
        (["--api-token-file", "/dev/null"], ["token", "empty"]),
        (["--listen", "nonsense"], ["--listen", "not a multiaddr"]),
        (["--listen", "/ip4/0.0.0.0/tcp/0"], ["not on loopback", "--open"]),
        (["--bootstrap", "/ip4/127.0.0.1/udp/1"], ["--bootstrap", "not a multiaddr"]),
        (["--backend", "hybird"], ["--backend", "mock, real, hybrid"]),
        (["--config", "/nowhere/node.yaml"], ["/nowhere/node.yaml", "No such file"]),
        (["--log-format", "xml"], ["--log-format", "text, json"]),
        (["--name", "a b"], ["--name", "is not a name"]),
    ],
)
def test_up_refuses_wrong_settings_in_one_clear_line(arguments: list[str], parts: list[str]) -> None:
    result = bzzz("up", "--json", *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("bzzz: ")
    assert result.stderr.count("\n") == 1
    for part in parts:
        assert part in result.stderr


# -- the node itself --------------------------------------------------------------------------------------------------


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


# -- a node that cannot be reached, and rare answers ------------------------------------------------------------------


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


@contextmanager
def stand_in(status: int, payload: Any, headers: dict[str, str] | None = None) -> Iterator[str]:
    """Something that answers every request with this."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_PUT = do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, name="stand-in")
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_something_that_is_no_node_is_exit_code_3() -> None:
    for status, body in ((500, b"<html>"), (404, b"{}"), (502, b"[]")):
        with stand_in(status, body) as where:
            result = bzzz("id", "--api", where)
            assert result.exit_code == 3
            assert "not a BZZZ node" in result.stderr


def test_an_answer_from_this_node_alone_is_reported_on_standard_error() -> None:
    headers = {"UCXL-Degraded": "true", "UCXL-Age-Ms": "90000", "UCXL-Reason": "nobody answered", "UCXL-Siblings": "2"}
    with stand_in(200, b"content", headers) as where:
        result = bzzz("get", ADDRESS, "--api", where)
    assert result.stdout_bytes == b"content"
    assert "from this node alone, last reconciled 90.0 s ago: nobody answered" in result.stderr
    assert "2 other versions were" in result.stderr


def test_a_refusal_that_may_pass_says_when_to_try_again() -> None:
    error = {"code": "UCXL-503-UNAVAILABLE", "message": "the swarm did not answer", "details": {}, "retryable": True}
    with stand_in(503, {"error": error}, {"Retry-After": "7"}) as where:
        result = bzzz("get", ADDRESS, "--api", where)
    assert result.exit_code == 1
    assert result.stderr == "bzzz: the swarm did not answer (try again in 7 s)\n"


def test_a_failed_node_is_exit_code_1_and_its_report_is_shown() -> None:
    component = {
        "component": "store", "backend": "local", "status": "failed", "last_check": "", "error_count": 2,
        "latency_ms": None, "reasons": ["the disk is gone"],
    }  # fmt: skip
    details = {"status": "failed", "reasons": ["the disk is gone"], "components": [component]}
    error = {"code": "UCXL-503-UNAVAILABLE", "message": "the disk is gone", "details": details, "retryable": True}
    with stand_in(503, {"error": error}) as where:
        result = bzzz("health", "--api", where)
        assert result.exit_code == 1
        assert result.stdout.startswith("failed\n  the disk is gone\n")
        as_json = bzzz("health", "--api", where, "--json")
        assert as_json.exit_code == 1
        assert json.loads(as_json.stdout)["status"] == "failed"


def watching(monkeypatch: pytest.MonkeyPatch, *between: Callable[[], None]) -> list[float]:
    """Between two reports of a watch these happen, one after the other, and after the last of them Ctrl-C."""
    slept: list[float] = []
    things = iter(between)

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        happens = next(things, None)
        if happens is None:
            raise KeyboardInterrupt
        happens()

    monkeypatch.setattr("node.commands.health.time.sleep", sleep)
    return slept


def test_health_is_watched_until_ctrl_c_and_a_node_that_is_away_is_waited_for(
    api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = threading.Event()
    call = ApiClient.call

    def maybe_away(self: ApiClient, *args: Any, **kwargs: Any) -> Any:
        if away.is_set():
            raise Failure(f"no node at {api}: nothing listens there", 3)
        return call(self, *args, **kwargs)

    monkeypatch.setattr(ApiClient, "call", maybe_away)
    slept = watching(monkeypatch, away.set, away.clear)
    result = bzzz("health", "--watch")
    assert result.exit_code == 0, "to end it is no failure"
    assert slept == [2.0, 2.0, 2.0]
    first, gone, back = result.stdout.rstrip().split("\n\n")
    for shown in (first, back):
        assert shown.splitlines()[1] == "healthy"
        assert "dht" in shown
    assert gone.splitlines()[1:] == ["away", f"  no node at {api}: nothing listens there"]

    slept = watching(monkeypatch, away.set, away.clear)
    lines = [json.loads(line) for line in bzzz("health", "--watch", "0.5", "--json").stdout.splitlines()]
    assert slept == [0.5, 0.5, 0.5]
    assert [line.get("status") for line in lines] == ["healthy", None, "healthy"]
    assert "nothing listens" in lines[1]["error"]["message"]
    assert {one["component"] for one in lines[0]["components"]} == {
        "dht", "resolver", "discovery", "api", "store", "configuration"
    }  # fmt: skip


def test_on_a_screen_each_report_takes_the_place_of_the_last_one(api: str, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    watching(monkeypatch, lambda: None)
    monkeypatch.setattr("node.commands.health.sys", type("Screen", (), {"stdout": Screen()}))
    monkeypatch.setattr("node.commands.health.click.echo", lambda text, **_: drawn.append(text))
    bzzz("health", "--watch", "1")
    reports = [text for text in drawn if text]
    assert len(reports) == 2
    assert all(text.startswith("\x1b[H\x1b[2J") and "healthy" in text for text in reports)


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("seconds", ["0", "soon", "nan", "inf", "1e9", ""])
def test_a_watch_takes_seconds(seconds: str) -> None:
    result = bzzz("health", "--watch", seconds)
    assert result.exit_code == 2
    assert "--watch" in result.stderr


def test_what_will_be_the_same_at_the_next_try_ends_a_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    slept = watching(monkeypatch)
    error = {"code": "UCXL-401-UNAUTHENTICATED", "message": "this node wants its token", "details": {}}
    with stand_in(401, {"error": error}) as where:
        result = bzzz("health", "--watch", "--api", where)
    assert (result.exit_code, slept) == (1, [])
    assert "wants its token" in result.stderr


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


# -- configuration ----------------------------------------------------------------------------------------------------


def test_config_show_names_each_value_and_its_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BZZZ_API_TOKEN", TOKEN)
    monkeypatch.setenv("BZZZ_REPLICATION", "7")
    shown = json_of("config", "show")
    assert shown["replication"] == {"value": "7", "origin": "environment BZZZ_REPLICATION"}
    assert shown["api_token"]["value"] == "********"
    assert TOKEN not in bzzz("config", "show").output
    monkeypatch.setenv("BZZZ_TYPO", "x")
    assert bzzz("config", "show").exit_code == 2


def test_config_check_says_whether_a_node_could_start_with_a_file(tmp_path: Path) -> None:
    path = tmp_path / "node.yaml"
    path.write_text("bzzz: {dht_backend: real, fallback_on_error: true}", encoding="utf-8")
    good = bzzz("config", "check", str(path))
    assert good.exit_code == 0
    assert "is hybrid" in good.stderr
    path.write_text("bzzz: {nam: x}", encoding="utf-8")
    bad = bzzz("config", "check", str(path))
    assert bad.exit_code == 2
    assert "did you mean name?" in bad.stderr


# -- what a command costs ---------------------------------------------------------------------------------------------


def test_no_command_but_up_imports_what_a_node_is_made_of() -> None:
    """What makes a command slow is what it imports; this is the list of what is known to be."""
    heavy = {"trio", "libp2p", "starlette", "hypercorn", "structlog", "yaml", "msgpack", "nacl", "httpx", "rich"}
    commands = sorted(set(COMMANDS.values()))
    script = f"import sys, importlib; [importlib.import_module(m) for m in {commands!r}]; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert heavy.isdisjoint(found), heavy.intersection(found)


def test_help_lists_every_command() -> None:
    result = bzzz("--help")
    assert result.exit_code == 0
    for command in COMMANDS:
        assert f"  {command} " in result.stdout
        more = bzzz(command, "--help")
        assert more.exit_code == 0
        for listed in (result.stdout.partition("Commands:")[2], more.stdout.partition("Commands:")[2]):
            assert not [line for line in listed.splitlines() if line.endswith("...")], "cut short"


@pytest.mark.parametrize(
    ("milliseconds", "words"),
    [
        (None, "never"),
        (0, "0 ms"),
        (999, "999 ms"),
        (1500, "1.5 s"),
        (120_000, "2 min"),
        (7_200_000, "2 h"),
        (2.6e8, "3 d"),
    ],
)
def test_durations_are_said_as_a_person_says_them(milliseconds: float | None, words: str) -> None:
    assert in_words(milliseconds) == words


def test_an_audit_log_with_nothing_in_it_is_a_broken_one(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_bytes(b"")
    ended = CliRunner().invoke(cli, ["audit", "verify", "--file", str(log)])
    assert ended.exit_code == 1
    assert "line 1 is broken: it is missing" in ended.output
