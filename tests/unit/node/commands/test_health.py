"""`bzzz health`, once and with --watch."""

import io
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from node.commands.client import ApiClient, Failure
from tests.unit.node.commands.running import bzzz, stand_in


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
        "dht", "resolver", "discovery", "api", "store", "replicas", "configuration"
    }  # fmt: skip


def test_on_a_screen_each_report_takes_the_place_of_the_last_one(api: str, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    monkeypatch.setenv("TERM", "xterm")
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
