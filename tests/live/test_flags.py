"""Flags of a real process: set by API, commands, an edit of the file and SIGHUP; during calls, and after a kill."""

import json
import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.live.node_processes import Process, Up, call, connected, data_of, envelope
from tests.unit.node.processes import BZZZ, environment
from tests.until import block_until


def flags(api: str) -> dict[str, Any]:
    return data_of(api, "/v1/flags")


def patch(api: str, **change: object) -> tuple[int, dict[str, Any]]:
    status, body = call(api, "/v1/flags", method="PATCH", body=json.dumps(change).encode())
    answer: dict[str, Any] = json.loads(body)
    return status, answer


def bzzz(api: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*BZZZ, *arguments, "--api", api]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=120)


def swarm_of_three(up: Up) -> tuple[list[Process], list[str]]:
    processes = [up("--name", "n1", data="1")]
    first = processes[0].ready()
    processes += [up("--name", f"n{n}", "--bootstrap", first["api"], data=str(n)) for n in (2, 3)]
    apis = [first["api"], *(process.ready()["api"] for process in processes[1:])]
    block_until(lambda: connected(apis[0]) == 2, what="all have met")
    return processes, apis


def test_flags_flip_under_calls_and_no_call_fails(up: Up) -> None:
    """The other nodes bootstrap from the API of the first one, and every flip is in the audit log."""
    _, apis = swarm_of_three(up)
    is_over = threading.Event()
    statuses: list[int] = []

    def caller(number: int) -> None:
        address = f"ucxl://agent:role@project:task/*^/{number}"
        while not is_over.is_set():
            statuses.append(call(apis[0], envelope(address), method="PUT", body=b"%d" % number)[0])
            statuses.append(call(apis[0], envelope(address))[0])

    def wait_for_answers(more: int) -> None:
        wanted = len(statuses) + more
        block_until(lambda: len(statuses) >= wanted, what=f"{more} more calls are answered")

    callers = [threading.Thread(target=caller, args=(number,)) for number in range(4)]
    for thread in callers:
        thread.start()
    try:
        for number in range(40):
            backend = ("mock", "hybrid", "real")[number % 3]
            assert patch(apis[0], backend=backend, reason=f"flip {number}")[0] == 200
            wait_for_answers(8)
    finally:
        is_over.set()
        for thread in callers:
            thread.join(20)
    assert len(statuses) > 100
    assert set(statuses) <= {200, 201, 202}
    assert flags(apis[0])["switches"] >= 39
    verified = bzzz(apis[0], "audit", "verify", "--json")
    assert (verified.returncode, json.loads(verified.stdout)["ok"]) == (0, True), verified
    shown = bzzz(apis[0], "audit", "show", "--last", "2")
    assert "backend: real -> mock" in shown.stdout
    assert "flip 39" in shown.stdout


def test_an_edited_file_is_put_in_force_or_refused_and_health_says_so(up: Up, tmp_path: Path) -> None:
    path = tmp_path / "node.yaml"
    path.write_text("bzzz:\n  dht:\n    backend: hybrid\n", encoding="utf-8")
    process = up("--config", str(path))
    api = process.ready()["api"]

    def reasons() -> str:
        return " ".join(json.loads(call(api, "/health")[1])["response"]["data"]["reasons"])

    path.write_text("bzzz:\n  dht:\n    backend: mock\n  deadline_ms: 70\n", encoding="utf-8")
    block_until(lambda: flags(api)["in_force"] == "mock", what="the edit is in force")
    assert flags(api)["flags"]["deadline_ms"] == 70
    path.write_text("bzzz:\n  dht:\n    backend: hybrid\n    fallback:\n", encoding="utf-8")
    block_until(lambda: "'dht.fallback:' is empty" in reasons(), what="the half-written file is refused")
    path.unlink()
    block_until(lambda: "No such file" in reasons(), what="the missing file is reported")
    assert flags(api)["in_force"] == "mock"
    assert call(api, envelope(), method="PUT", body=b"x")[0] == 202
    replacement = tmp_path / "new.yaml"
    replacement.write_text("bzzz:\n  dht:\n    backend: hybrid\n  threshold_errors: 9\n", encoding="utf-8")
    os.replace(replacement, path)
    process.popen.send_signal(signal.SIGHUP)
    block_until(lambda: flags(api)["flags"]["threshold_errors"] == 9, what="SIGHUP reads it at once")
    assert flags(api)["in_force"] == "hybrid"
    assert flags(api)["faults"] == []
    path.write_text("bzzz:\n  dht:\n    bakend: mock\n", encoding="utf-8")
    process.popen.send_signal(signal.SIGHUP)
    block_until(lambda: "did you mean dht.backend?" in reasons(), what="the mistake is named")
    assert process.stop() == 0


def test_flags_set_at_run_time_are_in_force_after_kill_9(up: Up, tmp_path: Path) -> None:
    first = up()
    api = first.ready()["api"]
    assert bzzz(api, "flags", "set", "rollout_percent=25", "deadline_ms=80ms", "--reason", "slowly").returncode == 0
    assert bzzz(api, "flags", "force", "mock", "--reason", "works", "--for", "1h", "--author", "ada").returncode == 0
    assert "needs a reason" in patch(api, override="open")[1]["error"]["message"]
    first.popen.kill()
    first.popen.wait()
    log = tmp_path / "data" / "audit.log"
    with log.open("ab") as file:
        file.write(b'{"act":"flags.changed","author":"adversary","deta')  # as a crash leaves it
    process = up()
    api = process.ready()["api"]
    found = flags(api)
    assert (found["flags"]["rollout_percent"], found["flags"]["deadline_ms"]) == (25, 80)
    assert (found["override"]["force"], found["override"]["author"], found["in_force"]) == ("mock", "ada", "mock")
    assert bzzz(api, "flags", "release").returncode == 0
    assert bzzz(api, "flags", "unset", "rollout_percent", "deadline_ms").returncode == 0
    assert flags(api)["flags"]["rollout_percent"] == 100
    assert "set by" in bzzz(api, "flags").stdout.lower()
    refused = bzzz(api, "flags", "set", "bakend=mock")
    assert (refused.returncode, "did you mean backend?" in refused.stderr) == (1, True)
    assert process.stop() == 0

    lines = log.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b"slowly", b"fastly")
    log.write_bytes(b"".join(lines))
    named = bzzz("127.0.0.1:1", "audit", "verify", "--file", str(log))
    assert named.returncode == 1
    assert "line 2 is broken: its signature does not fit" in named.stderr


@pytest.mark.parametrize("change", [{"backend": "hybrid"}, {"override": "open", "reason": "x"}])
def test_a_node_started_on_mock_says_why_it_cannot_be_switched(up: Up, change: dict[str, object]) -> None:
    api = up("--backend", "mock").ready()["api"]
    status, answer = patch(api, **change)
    assert status == 400
    assert "started with backend mock" in answer["error"]["message"]


def test_profiles_and_the_older_name_start_a_node(up: Up) -> None:
    process = up("--profile", "development", environment={"BZZZ_LOG_LEVEL": "info"})
    api = process.ready()["api"]
    assert flags(api)["in_force"] == "mock"
    assert process.stop() == 0
    real = up("--listen", "/ip4/127.0.0.1/tcp/0", environment={"BZZZ_USE_REAL_DHT": "true"}, data="real")
    assert flags(real.ready()["api"])["in_force"] == "real"
    assert "older name; write BZZZ_DHT_BACKEND" in real.log.read_text(encoding="utf-8")
