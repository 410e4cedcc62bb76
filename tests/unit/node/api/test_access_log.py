"""The access log: a failure is a warning, and a flood of failures is a few."""

import logging
from dataclasses import replace

import pytest
import trio

from node.api.access_log import KINDS_MAX, WARN_SECONDS, AccessLog
from tests.unit.node.api.served import Api


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_flood_of_failures_is_one_line_a_second_with_their_number(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    access_log = AccessLog()
    for _ in range(300):
        access_log.note("PUT", "/v1/envelope", 503, 1.0)
    assert warnings(caplog) == ["PUT /v1/envelope: 503"]
    access_log.note("PUT", "/v1/envelope", 500, 1.0)
    assert warnings(caplog)[1:] == ["PUT /v1/envelope: 500"], "another failure is said at once"
    await trio.sleep(WARN_SECONDS)
    access_log.note("GET", "/v1/envelope", 503, 1.0)
    assert warnings(caplog)[2:] == ["GET /v1/envelope: 503, and 299 more since the last such line"]
    await trio.sleep(WARN_SECONDS)
    access_log.note("PUT", "/v1/envelope", 503, 1.0)
    assert warnings(caplog)[3:] == ["PUT /v1/envelope: 503"]


async def test_paths_that_clients_make_up_take_no_memory(caplog: pytest.LogCaptureFixture) -> None:
    access_log = AccessLog()
    for number in range(3 * KINDS_MAX):
        access_log.note("GET", f"/v1/content/{number}", 503, 1.0)
    assert len(access_log._failed) <= KINDS_MAX  # private: it bounds the memory
    assert len(warnings(caplog)) == 3 * KINDS_MAX


async def test_what_is_answered_is_no_warning(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    await api.put(b"x")
    await api("GET", "/v1/nothing")
    assert warnings(caplog) == []


async def test_polls_of_a_node_that_failed_warn_once_for_each_change(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def poll(times: int, *, status: str) -> None:
        report = replace(healthy, status=status)
        monkeypatch.setattr(api.node, "health", lambda: report)
        for _ in range(times):
            await api("GET", "/health")

    healthy = api.node.health()
    await poll(3, status="failed")
    assert warnings(caplog) == ["GET /health: 503"]
    await api("GET", "/health", headers={"host": "evil.example"})
    await poll(3, status="failed")
    assert len(warnings(caplog)) == 1, "a refused stranger is no change of this node's health"
    await poll(1, status="healthy")
    await poll(3, status="failed")
    assert warnings(caplog) == ["GET /health: 503"] * 2
