"""The data directory of a real node: what survives a kill, what is refused, what vanishes or is damaged."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.live.node_processes import ADDRESS, Up, call, data_of, envelope, refusal
from tests.unit.node.processes import BZZZ, bzzz_process, environment
from tests.until import block_until


def test_acknowledged_writes_and_the_identity_survive_kill_9(up: Up) -> None:
    first = up("--backend", "mock")
    ready = first.ready()
    assert call(ready["api"], envelope(), method="PUT", body=b"kept")[0] == 202
    first.popen.kill()
    first.popen.wait()
    again = up("--backend", "mock").ready()
    assert again["peer_id"] == ready["peer_id"]
    assert call(again["api"], envelope()) == (200, b"kept")


def test_a_byte_that_a_disk_changed_is_not_served_and_its_version_is_fetched_from_another_node(
    up: Up, tmp_path: Path
) -> None:
    one_process = up("--name", "n1", data="1")
    one = one_process.ready()
    two = up("--name", "n2", "--bootstrap", one["multiaddrs"][0], data="2").ready()
    put = [*BZZZ, "put", ADDRESS, "--api", one["api"], "--replicated", "--timeout", "30s"]
    content = b"content that a disk changes"
    written = subprocess.run(put, input=content, capture_output=True, env=environment(), timeout=60)
    assert written.returncode == 0, written
    assert one_process.stop() == 0
    file = tmp_path / "1" / "store.db"
    data = bytearray(file.read_bytes())
    assert data.count(content) == 1
    data[data.index(content)] ^= 1
    file.write_bytes(data)
    found = bzzz_process("store", "check", "--data-dir", str(tmp_path / "1"), "--json")
    assert found.returncode == 1
    (fault,) = json.loads(found.stdout)["faults"]
    assert (fault["address"], fault["signed_part"]) == (ADDRESS, True)
    api = up("--name", "n1", "--bootstrap", two["multiaddrs"][0], data="1").ready()["api"]
    local = envelope() + "&consistency=local"
    block_until(lambda: call(api, local)[1] == content, what="the content is whole again")
    block_until(lambda: b"bzzz_store_set_aside 0" in call(api, "/metrics")[1], what="nothing is set aside any more")
    assert b"bzzz_store_damaged_total 1" in call(api, "/metrics")[1]


def test_what_was_set_at_run_time_outlives_the_audit_log_and_its_loss_is_reported(up: Up, tmp_path: Path) -> None:
    process = up()
    api = process.ready()["api"]
    assert bzzz_process("flags", "force", "mock", "--reason", "a test", "--api", api).returncode == 0
    assert bzzz_process("audit", "rotate", "--api", api).returncode == 0
    assert bzzz_process("audit", "verify", "--api", api).returncode == 0
    assert process.stop() == 0
    log = tmp_path / "data" / "audit.log"
    (earlier,) = tmp_path.glob("data/audit.*-*.log")
    earlier.unlink()
    process = up()
    api = process.ready()["api"]
    verified = bzzz_process("audit", "verify", "--api", api)
    assert verified.returncode == 0, verified
    assert b"are in files from before a rotation" in verified.stderr
    assert process.stop() == 0
    log.unlink()
    api = up().ready()["api"]
    flags = data_of(api, "/v1/flags")
    assert flags["in_force"] == "mock"
    assert any("lacks its last" in fault for fault in flags["faults"])
    assert b"lacks its last" in call(api, "/health")[1]
    verified = bzzz_process("audit", "verify", "--api", api)
    assert verified.returncode == 1
    assert b"lines are missing" in verified.stderr


@pytest.mark.parametrize(
    ("name", "component"), [("store.db", "store"), ("identity.key", "store"), ("audit.log", "configuration")]
)
def test_a_file_that_vanishes_under_a_running_node_is_a_failed_node_and_no_acknowledgement(
    up: Up, tmp_path: Path, name: str, component: str
) -> None:
    api = up("--backend", "mock").ready()["api"]
    assert call(api, envelope(), method="PUT", body=b"kept")[0] == 202
    (tmp_path / "data" / name).unlink()
    if name != "store.db":  # the loss of what a commit does not write is noticed by a look, twenty times a second
        block_until(lambda: call(api, "/health")[0] == 503, what="the loss is noticed")
    path, method, content = envelope(), "PUT", b"lost"
    if component == "configuration":
        path, method, content = "/v1/flags", "PATCH", b'{"cache_enabled": false}'
    headers = {"Content-Type": "application/json"} if component == "configuration" else {}
    status, body = call(api, path, method=method, body=content, **headers)
    assert status == 503
    assert f"{name} was removed" in body.decode()
    status, body = call(api, "/health")
    assert status == 503
    failed = {each["component"]: each for each in json.loads(body)["error"]["details"]["components"]}[component]
    assert failed["status"] == "failed"
    assert any(f"{name} was removed" in reason for reason in failed["reasons"])
    assert not (tmp_path / "data" / name).exists()


# -- refused at the start ---------------------------------------------------------------------------------------------


def test_a_second_process_on_a_data_directory_is_refused_and_the_first_goes_on(up: Up, tmp_path: Path) -> None:
    first = up("--backend", "mock")
    api = first.ready()["api"]
    line = refusal("--data-dir", str(tmp_path / "data"), "--api", "127.0.0.1:0", "--backend", "mock")
    assert f"in use by process {first.popen.pid}" in line
    assert call(api, envelope(), method="PUT", body=b"x")[0] == 202


def test_a_data_directory_that_cannot_be_used_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("", encoding="utf-8")
    for data in (path, path / "below", Path("/proc/nowhere")):
        line = refusal("--data-dir", str(data), "--api", "127.0.0.1:0", "--backend", "mock")
        assert f"the data directory {data} cannot be used" in line


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads and writes everything")
def test_a_data_directory_without_permissions_is_one_clear_line(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o000)
    assert "Permission denied" in refusal("--data-dir", str(data), "--api", "127.0.0.1:0", "--backend", "mock")
    data.chmod(0o700)


@pytest.mark.parametrize(
    ("name", "content", "mode", "part"),
    [
        ("identity.key", b"garbage", 0o600, "identity"),
        ("identity.key", b"", 0o644, "chmod 600"),
        ("store.db", b"this is no database" * 100, 0o600, "store.db"),
    ],
)
def test_damaged_or_foreign_files_are_one_clear_line_and_left_unchanged(
    tmp_path: Path, name: str, content: bytes, mode: int, part: str
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / name).write_bytes(content)
    (data / name).chmod(mode)
    line = refusal("--data-dir", str(data), "--api", "127.0.0.1:0", "--backend", "mock")
    assert part in line
    assert (data / name).read_bytes() == content
