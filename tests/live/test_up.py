"""`bzzz up` as a process: its ready line, its ends, and the starts that are refused."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import pytest

from protocols.policy.twin import FORGET_SECONDS
from tests.until import SECONDS_MAX, block_until

REPOSITORY = Path(__file__).parents[2]
BZZZ = (sys.executable, "-m", "node.cli")
ADDRESS = "ucxl://agent:role@project:task/*^/notes/a.md"
STOP_SECONDS = 2.0
READY_SECONDS = 60.0


class Process:
    """One `bzzz up`, whose standard output is read line by line and whose log is in a file."""

    def __init__(
        self, log: Path, *arguments: str, environment: dict[str, str] | None = None, descriptors: int | None = None
    ) -> None:
        self.log = log
        limited = () if descriptors is None else ("sh", "-c", f'ulimit -n {descriptors} && exec "$@"', "sh")
        with log.open("ab") as stderr:
            self.popen = subprocess.Popen(
                [*limited, *BZZZ, "up", *arguments],
                stdout=subprocess.PIPE, stderr=stderr, stdin=subprocess.DEVNULL, cwd=REPOSITORY, env=clean(environment),
                start_new_session=True,  # without a terminal, SIGHUP has the configuration read again
            )  # fmt: skip

    @property
    def stdout(self) -> IO[bytes]:
        assert self.popen.stdout is not None
        return self.popen.stdout

    def ready(self) -> dict[str, Any]:
        """Wait for its ready line, and return it read from JSON."""
        line = self.stdout.readline()
        assert line, self.log.read_text(encoding="utf-8")
        found: dict[str, Any] = json.loads(line)
        return found

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code. Raises `TimeoutExpired` when it does not end in time."""
        self.popen.send_signal(number)
        return self.popen.wait(STOP_SECONDS)

    def end(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()
        self.stdout.close()


Up = Callable[..., Process]


def clean(environment: dict[str, str] | None = None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BZZZ_", "RUSTLE_"))}
    return {**kept, **(environment or {})}


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    """Starts nodes on free ports, in the data directory `data` unless another is named, and ends them all."""
    processes: list[Process] = []

    def start(
        *arguments: str,
        environment: dict[str, str] | None = None,
        data: str = "data",
        descriptors: int | None = None,
    ) -> Process:
        common = ["--data-dir", str(tmp_path / data), "--json"]
        if "--api" not in arguments:
            common += ["--api", "127.0.0.1:0"]
        if "--listen" not in arguments and "mock" not in arguments:
            common += ["--listen", "/ip4/127.0.0.1/tcp/0"]
        processes.append(
            Process(tmp_path / "log", *common, *arguments, environment=environment, descriptors=descriptors)
        )
        return processes[-1]

    yield start
    for process in processes:
        process.end()


def call(api: str, path: str, *, method: str = "GET", body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    request = urllib.request.Request(api + path, data=body, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def envelope(address: str = ADDRESS) -> str:
    return f"/v1/envelope?address={quote(address, safe='')}"


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
    status, body = call(ready["api"], "/v1/node")
    node = json.loads(body)["response"]["data"]
    assert status == 200
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


def test_acknowledged_writes_and_the_identity_survive_kill_9(up: Up) -> None:
    first = up("--backend", "mock")
    ready = first.ready()
    assert call(ready["api"], envelope(), method="PUT", body=b"kept")[0] == 202
    first.popen.kill()
    first.popen.wait()
    again = up("--backend", "mock").ready()
    assert again["peer_id"] == ready["peer_id"]
    assert call(again["api"], envelope()) == (200, b"kept")


def test_mock_opens_no_socket_but_its_api(up: Up) -> None:
    ready = up("--backend", "mock").ready()
    assert ready["multiaddrs"] == []


def test_a_value_put_on_one_node_is_got_from_another(up: Up) -> None:
    one = up("--name", "n1", data="1").ready()
    two = up("--name", "n2", "--bootstrap", one["multiaddrs"][0], data="2").ready()
    put = [*BZZZ, "put", ADDRESS, "--api", one["api"], "--replicated", "--timeout", "30s", "--json"]
    written = subprocess.run(put, input=b"hello", capture_output=True, cwd=REPOSITORY, env=clean(), timeout=60)
    assert written.returncode == 0, written
    assert json.loads(written.stdout)["replicated"] is True
    get = [*BZZZ, "get", ADDRESS, "--api", two["api"]]
    read = subprocess.run(get, capture_output=True, cwd=REPOSITORY, env=clean(), timeout=60)
    assert (read.returncode, read.stdout) == (0, b"hello"), read


def test_a_byte_that_a_disk_changed_is_not_served_and_its_version_is_fetched_from_another_node(
    up: Up, tmp_path: Path
) -> None:
    one_process = up("--name", "n1", data="1")
    one = one_process.ready()
    two = up("--name", "n2", "--bootstrap", one["multiaddrs"][0], data="2").ready()
    put = [*BZZZ, "put", ADDRESS, "--api", one["api"], "--replicated", "--timeout", "30s"]
    content = b"content that a disk changes"
    written = subprocess.run(put, input=content, capture_output=True, cwd=REPOSITORY, env=clean(), timeout=60)
    assert written.returncode == 0, written
    assert one_process.stop() == 0
    file = tmp_path / "1" / "store.db"
    data = bytearray(file.read_bytes())
    assert data.count(content) == 1
    data[data.index(content)] ^= 1
    file.write_bytes(data)
    check = [*BZZZ, "store", "check", "--data-dir", str(tmp_path / "1"), "--json"]
    found = subprocess.run(check, capture_output=True, cwd=REPOSITORY, env=clean(), timeout=60)
    assert found.returncode == 1
    (fault,) = json.loads(found.stdout)["faults"]
    assert (fault["address"], fault["signed_part"]) == (ADDRESS, True)
    api = up("--name", "n1", "--bootstrap", two["multiaddrs"][0], data="1").ready()["api"]
    local = envelope() + "&consistency=local"
    block_until(lambda: call(api, local)[1] == content, what="the content is whole again")
    block_until(lambda: b"bzzz_store_set_aside 0" in call(api, "/metrics")[1], what="nothing is set aside any more")
    assert b"bzzz_store_damaged_total 1" in call(api, "/metrics")[1]


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
    node = json.loads(call(ready["api"], "/v1/node")[1])["response"]["data"]
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


def has_met_another(api: str) -> bool:
    return b'"connected":true' in call(api, "/v1/peers")[1]


def test_a_node_with_a_connected_peer_ends_as_soon(up: Up) -> None:
    first = up(data="1")
    one = first.ready()
    second = up("--bootstrap", one["multiaddrs"][0], data="2")
    second.ready()
    block_until(lambda: has_met_another(one["api"]))
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


def refusal(*arguments: str, environment: dict[str, str] | None = None) -> str:
    """The only line of a node whose start is refused."""
    ended = subprocess.run(
        [*BZZZ, "up", *arguments], capture_output=True, text=True, cwd=REPOSITORY, env=clean(environment), timeout=60
    )
    assert ended.returncode == 2, ended
    assert ended.stdout == ""
    assert ended.stderr.startswith("bzzz: "), ended.stderr
    assert ended.stderr.count("\n") == 1, ended.stderr
    return ended.stderr


def test_wrong_settings_are_one_clear_line_and_leave_nothing(tmp_path: Path) -> None:
    """The settings and their messages are tested in `tests/unit/node/config/test_settings.py`."""
    data = tmp_path / "data"
    line = refusal("--data-dir", str(data), "--api", "0.0.0.0:0")
    assert "0.0.0.0:0 is not on loopback" in line
    assert "--api-token-file" in line
    line = refusal("--data-dir", str(data), environment={"BZZZ_DHT_BAKEND": "mock"})
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


def test_what_was_set_at_run_time_outlives_the_audit_log_and_its_loss_is_reported(up: Up, tmp_path: Path) -> None:
    def bzzz(*arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*BZZZ, *arguments], capture_output=True, cwd=REPOSITORY, env=clean(), timeout=60, check=False
        )

    process = up()
    api = process.ready()["api"]
    assert bzzz("flags", "force", "mock", "--reason", "a test", "--api", api).returncode == 0
    assert bzzz("audit", "rotate", "--api", api).returncode == 0
    assert bzzz("audit", "verify", "--api", api).returncode == 0
    assert process.stop() == 0
    log = tmp_path / "data" / "audit.log"
    (earlier,) = tmp_path.glob("data/audit.*-*.log")
    earlier.unlink()
    process = up()
    api = process.ready()["api"]
    verified = bzzz("audit", "verify", "--api", api)
    assert verified.returncode == 0, verified
    assert b"are in files from before a rotation" in verified.stderr
    assert process.stop() == 0
    log.unlink()
    api = up().ready()["api"]
    flags = json.loads(call(api, "/v1/flags")[1])["response"]["data"]
    assert flags["in_force"] == "mock"
    assert any("lacks its last" in fault for fault in flags["faults"])
    assert b"lacks its last" in call(api, "/health")[1]
    verified = bzzz("audit", "verify", "--api", api)
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
    time.sleep(0.1)  # what no commit writes is looked at twenty times a second
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


# -- the log ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_log_has_each_request_and_its_trace_and_no_secret(up: Up, form: str, tmp_path: Path) -> None:
    token, trace = "token-that-is-not-guessed", "4bf92f3577b34da6a3ce929d0e0e4736"
    environment = {"BZZZ_API_TOKEN": token, "BZZZ_LOG_LEVEL": "debug", "BZZZ_LOG_FORMAT": form}
    process = up("--backend", "mock", environment=environment)
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
    environment = {"BZZZ_LOG_LEVEL": "debug", "BZZZ_LOG_FORMAT": "json"}
    one = up(environment=environment, data="1").ready()
    two = up("--bootstrap", one["multiaddrs"][0], environment=environment, data="2").ready()
    block_until(lambda: has_met_another(two["api"]), seconds=READY_SECONDS)
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


# -- few file descriptors ----------------------------------------------------------------------------------------------


def test_too_few_file_descriptors_are_a_refusal_to_start(up: Up, tmp_path: Path) -> None:
    process = up(descriptors=24)
    assert process.popen.wait(READY_SECONDS) == 2
    (line,) = process.log.read_text(encoding="utf-8").splitlines()
    assert "may open 24 files and sockets, and a node needs at least" in line
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("descriptors", [64, 256])
def test_more_connections_than_file_descriptors_end_nothing(descriptors: int, up: Up) -> None:
    process = up(descriptors=descriptors)
    ready = process.ready()
    api_port = int(ready["api"].rpartition(":")[2])
    swarm_port = int(ready["multiaddrs"][0].split("/")[4])
    with contextlib.ExitStack() as stack:
        for port in (api_port, swarm_port):
            for _ in range(260):
                stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        time.sleep(3)  # the looks at memory, files and configuration come every two seconds at most
        assert call(ready["api"], envelope(), method="PUT", body=b"all the same")[0] in (201, 202)
        assert call(ready["api"], envelope())[1] == b"all the same"
        assert len(os.listdir(f"/proc/{process.popen.pid}/fd")) < descriptors - 8
        assert "no file descriptors left" not in process.log.read_text(encoding="utf-8")
    assert process.stop() == 0


# -- one identity on two running nodes --------------------------------------------------------------------------------


def test_of_two_nodes_with_one_identity_one_backs_off_and_both_say_so(up: Up, tmp_path: Path) -> None:
    third = up(data="third").ready()
    first = up("--bootstrap", third["multiaddrs"][0], data="first")
    api = {"first": first.ready()["api"], "third": third["api"]}
    block_until(lambda: _connected(api["first"]) == 1)
    shutil.copytree(tmp_path / "first", tmp_path / "copy", ignore=shutil.ignore_patterns("*.lock"))
    copy = up("--bootstrap", third["multiaddrs"][0], data="copy")
    ready = copy.ready()
    api["copy"] = ready["api"]
    assert ready["peer_id"] == _peer_id(api["first"])

    def names(of: str, words: str) -> bool:
        return words in _health(api[of])["text"]

    both = ("first", "copy")
    block_until(
        lambda: all(names(each, "another node runs with this node's identity, at /ip4/") for each in both), seconds=40
    )
    block_until(lambda: sum(names(each, "this one has no peers until that one ends") for each in both) == 1, seconds=20)
    block_until(lambda: sum(names(each, "that one stays out of the swarm") for each in both) == 1, seconds=20)
    out, stays = both if names("first", "this one has no peers") else reversed(both)  # the later one, but for a race
    assert _health(api["first"])["status"] == _health(api["copy"])["status"] == "degraded"
    block_until(lambda: _connected(api[stays]) == 1, seconds=20)
    assert _connected(api[out]) == 0
    assert first.log.read_text(encoding="utf-8").count("another node runs with this node's identity, at /ip4/") >= 2

    assert {"first": first, "copy": copy}[stays].stop() == 0
    block_until(lambda: _connected(api[out]) == 1, seconds=FORGET_SECONDS + 25)
    assert "identity" not in _health(api[out])["text"]


def _health(api: str) -> dict[str, Any]:
    _, body = call(api, "/health")
    payload = json.loads(body)
    status = payload.get("response", payload.get("error", {}))
    return {"text": body.decode(), "status": status.get("data", status.get("details", {})).get("status")}


def _connected(api: str) -> int:
    peers = json.loads(call(api, "/v1/peers")[1])["response"]["data"]["peers"]
    return sum(1 for peer in peers if peer["connected"])


def _peer_id(api: str) -> str:
    return str(json.loads(call(api, "/v1/node")[1])["response"]["data"]["peer_id"])
