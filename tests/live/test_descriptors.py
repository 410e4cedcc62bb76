"""A node that may open few files and sockets: too few are refused at the start, and no flood of clients ends it."""

import contextlib
import os
import socket
import time
from pathlib import Path

import pytest

from tests.live.node_processes import READY_SECONDS, Up, call, envelope


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
                stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
        time.sleep(3)  # the looks at memory, files and configuration come every two seconds at most
        assert call(ready["api"], envelope(), method="PUT", body=b"all the same")[0] in (201, 202)
        assert call(ready["api"], envelope())[1] == b"all the same"
        assert len(os.listdir(f"/proc/{process.popen.pid}/fd")) < descriptors - 8
        assert "no file descriptors left" not in process.log.read_text(encoding="utf-8")
    assert process.stop() == 0
