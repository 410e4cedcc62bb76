"""Content by its CID among processes: found wherever it is, by the API and by the command line."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from netsim.processes.client import NodeReply
from netsim.processes.interrupts import Interrupts
from netsim.processes.node import NodeProcess
from protocols.cid import encode
from tests.unit.node.processes import bzzz_process
from tests.until import block_until

ADDRESS = "ucxl://live:tester@bzzz:contents/*^/notes.md"
TIMEOUT_MS = 10_000


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[NodeProcess]]:
    """Five nodes, each connected with all others; an address has its writer and one other holder."""
    made = [
        NodeProcess(f"n{number}", tmp_path / str(number), replication=1, interrupts=Interrupts()) for number in range(5)
    ]
    for node in made:
        node.start([other.multiaddrs[0] for other in made if other.multiaddrs])
        node.wait_ready()
    block_until(lambda: all(node.client.connected_peers() == 4 for node in made), what="all nodes have met")
    yield made
    for node in made:
        node.ask_to_end()
    for node in made:
        node.wait_ended(time.monotonic() + 5.0)


def by_cid(node: NodeProcess, cid: str, consistency: str = "auto") -> NodeReply:
    fields = {"consistency": consistency, "timeout_ms": str(TIMEOUT_MS)}
    return node.client.call("GET", f"/v1/content/{cid}", fields, timeout_ms=TIMEOUT_MS)


@pytest.mark.deadline(120)
def test_content_is_found_at_whichever_node_holds_it(nodes: list[NodeProcess]) -> None:
    content = b"x" * 900_000
    cid = nodes[0].client.put(ADDRESS, content, timeout_ms=TIMEOUT_MS).data["cid"]
    block_until(lambda: nodes[0].client.pending() == 0, what="the holder has it")
    holders = [node for node in nodes if by_cid(node, cid, "local").status == 200]
    assert len(holders) == 2 and nodes[0] in holders
    for node in nodes:
        reply = by_cid(node, cid)
        assert (reply.status, reply.body) == (200, content), str(reply)
        assert reply.headers["UCXL-Source"] == ("local" if node in holders else "swarm")
        assert (by_cid(node, cid, "local").status == 200) == (node in holders), "it is not kept"

    others = [node for node in nodes if node not in holders]
    printed = bzzz_process("get", "--cid", cid, "--timeout", "10s", "--api", others[0].api.removeprefix("http://"))
    assert printed.stdout == content

    assert by_cid(others[0], encode(b"?" * 32)).status == 404
    holders[0].kill()
    assert by_cid(others[0], cid).body == content, "the other holder is asked"
    holders[1].kill()
    others[1].kill()
    assert by_cid(others[0], cid).status == 503, "three of the four that may hold it cannot be asked"
