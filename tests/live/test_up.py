"""`bzzz up` as a process: its ready line, its ends, and the starts that are refused."""

import json
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.live.node_processes import ADDRESS, READY_SECONDS, Process, Up, call, connected, data_of, refusal
from tests.unit.node.processes import BZZZ, bzzz_process, environment
from tests.until import SECONDS_MAX, block_until

# -- ready ------------------------------------------------------------------------------------------------------------


def test_ready_is_one_line_of_json_and_then_everything_answers(up: Up) -> None:
    ready = up("--name", "n1").ready()
    assert set(ready) == {"event", "peer_id", "multiaddrs", "api"}
    assert ready["event"] == "ready"
    assert ready["peer_id"].startswith("12D3KooW")
    (multiaddr,) = ready["multiaddrs"]
    port = int(multiaddr.split("/")[4])
    assert multiaddr == f"/ip4/127.0.0.1/tcp/{port}/p2p/{ready['peer_id']}"
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        pass
    assert call(ready["api"], "/ready")[0] == 200
    node = data_of(ready["api"], "/v1/node")
    assert (node["peer_id"], node["multiaddrs"], node["name"]) == (ready["peer_id"], ready["multiaddrs"], "n1")
    assert node["backend"] == "hybrid"


def test_ready_in_words_says_the_same(tmp_path: Path) -> None:
    arguments = ("--data-dir", str(tmp_path / "data"), "--api", "127.0.0.1:0", "--backend", "mock", "--name", "n1")
    process = Process(tmp_path / "log", *arguments)
    try:
        lines = [process.stdout.readline().decode() for _ in range(3)]
        assert lines[0] == "ready: n1 (mock)\n"
        assert lines[1].split()[:2] == ["peer", "id"]
        assert lines[2].split()[1].startswith("http://127.0.0.1:")
        assert process.stop() == 0
    finally:
        process.end()


def test_a_node_that_listens_on_loopback_alone_says_so(tmp_path: Path) -> None:
    arguments = ("--data-dir", str(tmp_path / "data"), "--api", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/tcp/0")
    process = Process(tmp_path / "log", *arguments)
    try:
        lines = [process.stdout.readline().decode() for _ in range(5)]
        assert lines[3].strip().startswith("it listens on loopback alone: '--open', or a network key, "), lines
        assert process.stop() == 0
        assert "it listens on loopback alone" in process.log.read_text(encoding="utf-8")
    finally:
        process.end()


def test_mock_opens_no_socket_but_its_api(up: Up) -> None:
    ready = up("--backend", "mock").ready()
    assert ready["multiaddrs"] == []


def test_a_value_put_on_one_node_is_got_from_another(up: Up) -> None:
    one = up("--name", "n1", data="1").ready()
    two = up("--name", "n2", "--bootstrap", one["multiaddrs"][0], data="2").ready()
    put = [*BZZZ, "put", ADDRESS, "--api", one["api"], "--replicated", "--timeout", "30s", "--json"]
    written = subprocess.run(put, input=b"hello", capture_output=True, env=environment(), timeout=60)
    assert written.returncode == 0, written
    assert json.loads(written.stdout)["replicated"] is True
    read = bzzz_process("get", ADDRESS, "--api", two["api"])
    assert (read.returncode, read.stdout) == (0, b"hello"), read


def test_the_api_off_loopback_is_served_to_clients_with_the_token(up: Up, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret-of-the-api\n", encoding="utf-8")
    process = up("--backend", "mock", "--api", "0.0.0.0:0", "--api-token-file", str(token), "--log-format", "json")
    api = process.ready()["api"].replace("0.0.0.0", "127.0.0.1")
    assert call(api, "/v1/node")[0] == 401
    assert call(api, "/v1/node", Authorization="Bearer wrong")[0] == 401
    assert call(api, "/v1/node", Authorization="Bearer s3cret-of-the-api")[0] == 200
    assert call(api, "/v1/bootstrap")[0] == 200
    assert process.stop() == 0
    log = process.log.read_text(encoding="utf-8")
    assert "s3cret" not in log
    assert [json.loads(line)["event"] for line in log.splitlines()] == ["ready", "stopping", "stopped"]


def test_settings_may_come_from_the_environment_or_a_file(up: Up, tmp_path: Path) -> None:
    path = tmp_path / "node.yaml"
    path.write_text("bzzz: {name: of-file, dht: {backend: mock}, network: w}", encoding="utf-8")
    ready = up(environment={"BZZZ_CONFIG": str(path), "BZZZ_NAME": "of-environment"}).ready()
    node = data_of(ready["api"], "/v1/node")
    assert (node["name"], node["network"], node["backend"]) == ("of-environment", "w", "mock")


# -- the end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("backend", ["mock", "hybrid"])
def test_a_signal_ends_a_node_cleanly_and_soon(up: Up, number: signal.Signals, backend: str) -> None:
    process = up("--backend", backend)
    ready = process.ready()
    host, port = ready["api"].removeprefix("http://").split(":")
    with (
        socket.create_connection((host, int(port))) as idle,
        socket.create_connection(idle.getpeername()) as half,
    ):
        half.sendall(b"PUT /v1/envelope HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n")
        assert process.stop(number) == 0
        assert idle.recv(1) == b""
    assert "Traceback" not in process.log.read_text(encoding="utf-8")
    assert call_refused(ready["api"])
    if backend == "mock":
        assert up("--backend", backend).ready()["peer_id"] == ready["peer_id"], "the lock and the store are free again"


def test_a_second_signal_changes_nothing(up: Up) -> None:
    process = up()
    process.ready()
    process.popen.send_signal(signal.SIGINT)
    end = time.monotonic() + SECONDS_MAX
    while "stopping" not in process.log.read_text(encoding="utf-8"):
        assert process.popen.poll() is None, "it ended without a log line"
        assert time.monotonic() < end, f"not within {SECONDS_MAX:g} s: it logs that it stops"
        time.sleep(0.001)  # shorter than in `block_until`: the second signal must come while the node is stopping

    def has_ended() -> bool:
        if process.popen.poll() is None:
            process.popen.send_signal(signal.SIGINT)  # as a person presses Ctrl-C until something happens
        return process.popen.poll() is not None

    block_until(has_ended)
    assert process.popen.returncode == 0
    assert "Traceback" not in process.log.read_text(encoding="utf-8")


def call_refused(api: str) -> bool:
    try:
        call(api, "/ready")
    except urllib.error.URLError as error:
        return isinstance(error.reason, ConnectionRefusedError)
    return False


def test_a_node_with_a_connected_peer_ends_as_soon(up: Up) -> None:
    first = up(data="1")
    one = first.ready()
    second = up("--bootstrap", one["multiaddrs"][0], data="2")
    second.ready()
    block_until(lambda: connected(one["api"]))
    assert second.stop() == 0
    assert first.stop(signal.SIGINT) == 0


def test_a_node_goes_on_when_its_output_is_not_read(up: Up) -> None:
    process = up("--backend", "mock")
    process.stdout.close()
    block_until(lambda: "ready" in process.log.read_text(encoding="utf-8"), seconds=READY_SECONDS)
    assert process.popen.poll() is None
    assert process.stop() == 0
    assert "Traceback" not in process.log.read_text(encoding="utf-8")


# -- bad starts -------------------------------------------------------------------------------------------------------


def test_wrong_settings_are_one_clear_line_and_leave_nothing(tmp_path: Path) -> None:
    """The settings and their messages are tested in `tests/unit/node/config/test_settings.py`."""
    data = tmp_path / "data"
    line = refusal("--data-dir", str(data), "--api", "0.0.0.0:0")
    assert "0.0.0.0:0 is not on loopback" in line
    assert "--api-token-file" in line
    line = refusal("--data-dir", str(data), BZZZ_DHT_BAKEND="mock")
    assert "did you mean BZZZ_DHT_BACKEND?" in line
    path = tmp_path / "node.yaml"
    path.write_text("bzzz: {data_dirr: x}", encoding="utf-8")
    line = refusal("--config", str(path), "--data-dir", str(data))
    assert "did you mean data_dir?" in line
    assert not data.exists()


def test_a_port_in_use_is_one_clear_line(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = refusal("--data-dir", str(data), "--api", f"127.0.0.1:{port}")
        assert f"127.0.0.1:{port}: another process uses that port" in line
        assert not data.exists()
        listen = f"/ip4/127.0.0.1/tcp/{port}"
        line = refusal("--data-dir", str(data), "--api", "127.0.0.1:0", "--listen", listen)
        assert f"cannot listen on {listen}: Address already in use; another program or node listens there" in line
        assert not data.exists()
