"""The log of a real node: each request with its trace, over two processes too, and no secret."""

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from tests.live.node_processes import READY_SECONDS, Up, call, connected, envelope
from tests.until import block_until


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_log_has_each_request_and_its_trace_and_no_secret(up: Up, form: str, tmp_path: Path) -> None:
    token, trace = "token-that-is-not-guessed", "4bf92f3577b34da6a3ce929d0e0e4736"
    variables = {"BZZZ_API_TOKEN": token, "BZZZ_LOG_LEVEL": "debug", "BZZZ_LOG_FORMAT": form}
    process = up("--backend", "mock", environment=variables)
    api = process.ready()["api"]
    parent = f"00-{trace}-00f067aa0ba902b7-01"
    headers: dict[str, Any] = {"authorization": f"Bearer {token}", "traceparent": parent}
    assert call(api, envelope(), method="PUT", body=b"x", **headers)[0] == 202
    assert call(api, "/metrics", **headers)[0] == 200
    assert call(api, "/metrics")[0] == 401
    assert call(api, "/metrics", authorization=f"Bearer {token}x")[0] == 401
    assert call(api, f"/v1/node?token={token}", **headers)[0] == 400
    assert call(api, "/one%0Atwo", **headers)[0] == 404
    assert process.stop() == 0
    log = process.log.read_text(encoding="utf-8")
    assert token not in log
    identity = (tmp_path / "data" / "identity.key").read_bytes()
    for secret in (identity, identity[4:36]):  # the file, and the seed in it
        assert secret.hex() not in log
        assert b64encode(secret).decode() not in log
    lines = [line for line in log.splitlines() if trace in line]
    assert len(lines) == 4, "one for each request of that trace"
    if form == "json":
        first = json.loads(lines[0])
        assert (first["method"], first["path"], first["status"]) == ("PUT", "/v1/envelope", 202)
        assert (first["trace"], first["level"]) == (trace, "debug")
        assert all(json.loads(line) for line in log.splitlines())
    else:
        assert f"trace={trace}" in lines[0]
    assert ("one\\\\ntwo" if form == "json" else "one\\ntwo") in log, "a path is one line, whatever is in it"


def test_one_trace_leads_through_the_logs_of_two_processes(up: Up, tmp_path: Path) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    variables = {"BZZZ_LOG_LEVEL": "debug", "BZZZ_LOG_FORMAT": "json"}
    one = up(environment=variables, data="1").ready()
    two = up("--bootstrap", one["multiaddrs"][0], environment=variables, data="2").ready()
    block_until(lambda: connected(two["api"]), seconds=READY_SECONDS)
    address = f"{envelope()}&replicated=true"
    headers: dict[str, Any] = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    assert call(one["api"], address, method="PUT", body=b"x", **headers)[0] == 201
    log = (tmp_path / "log").read_text(encoding="utf-8")
    events = [json.loads(line)["event"] for line in log.splitlines() if trace in line]
    assert f"serves a Merge of {one['peer_id']}" in events
    status, metrics = call(one["api"], "/metrics")
    assert status == 200
    assert b'bzzz_dht_requests_total{backend="hybrid",operation="put",outcome="replicated"} 1.0' in metrics
    assert b"\nbzzz_swarm_connected 1.0" in metrics
    assert b"\nbzzz_store_size_bytes " in metrics
