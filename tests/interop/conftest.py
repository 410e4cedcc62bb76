"""Fixtures of the interoperation tests. Without Node.js they are skipped, and say so."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path

import pytest

from benchmarks.js_node import JsNode
from benchmarks.js_packages import JsUnavailable, installed
from netsim.processes.interrupts import Interrupts
from netsim.processes.node import NodeProcess
from tests.live.conftest import site as site

StartJs = Callable[..., JsNode]
StartNode = Callable[..., NodeProcess]


@pytest.fixture(scope="session")
def packages() -> Path:
    """The folder of the js programs and their packages."""
    try:
        return installed()
    except JsUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def start_js(packages: Path, tmp_path: Path) -> Iterator[StartJs]:
    """Starts a js-libp2p node by a name, which gives it its key: `start_js("one")`. All are ended with the test."""
    with ExitStack() as started:

        def start(name: str, *, port: int = 0) -> JsNode:
            seed = sha256(name.encode()).digest()
            node = JsNode(packages, seed=seed, log=tmp_path / f"{name}.log", port=port)
            started.callback(node.end)
            return node

        yield start


@pytest.fixture
def start_node(tmp_path: Path) -> Iterator[StartNode]:
    """Starts a node of ours, which knows the others that it is given: `start_node("ada", bob)`. All are ended."""
    nodes: list[NodeProcess] = []

    def start(name: str, *known: NodeProcess) -> NodeProcess:
        node = NodeProcess(name, tmp_path / name, replication=20, interrupts=Interrupts())
        nodes.append(node)
        node.start([other.multiaddrs[0] for other in known])
        node.wait_ready()
        return node

    yield start
    for node in nodes:
        node.ask_to_end()
    for node in nodes:
        node.wait_ended(time.monotonic() + 5.0)
